"""Trace and plan a split of every model name timm has, without any weights.

    python -m tests.graph.sweep sweep.jsonl [--pattern 'resnet*'] [--limit 20] [--seconds 120]

Models are made on the meta device, traced in both modes, their layers listed, a random split laid
out and its forward functions written. In-place operations are not watched, for that takes values;
tests/graph/test_families.py does it with one model of each family. Results are appended as JSON
lines; a name that is in the file already is skipped.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import signal
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import timm
import torch
from rich.console import Console
from torch import nn

from recon_search.errors import BackboneError
from recon_search.graph.emit import compile_forward, emit
from recon_search.graph.layers import layer_names
from recon_search.graph.layout import lay_out
from recon_search.graph.mutation import Effects
from recon_search.graph.partition import from_groups
from recon_search.graph.trace import Trace, trace
from tests.graph.laws import random_split

NOTHING: frozenset[Any] = frozenset()


def main() -> None:
    """Append one line a model and print a summary of the whole file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--pattern", default="", help="as in timm.list_models")
    parser.add_argument("--limit", type=int, help="stop after so many models")
    parser.add_argument("--seconds", type=int, default=120, help="give up on a model after that")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, give_up)
    rows = read(args.file)
    done = {row["name"] for row in rows}
    first = {row["alike"]: row["name"] for row in rows if row["ok"] and "alike" in row}
    names = [name for name in timm.list_models(args.pattern) if name not in done]
    for name in names[: args.limit]:
        row = try_model(name, first, args.seconds)
        rows.append(row)
        with args.file.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        gc.collect()
    summarise(rows)


def read(path: Path) -> list[dict[str, Any]]:
    """Read the lines of an earlier run, if there was one."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


class TooSlow(BaseException):
    """A model takes too long; no exception that the code under test would take for its own."""


def give_up(*_: object) -> None:
    """Stop a model that takes too long."""
    raise TooSlow("stopped")


def try_model(name: str, first: dict[str, str], seconds: int) -> dict[str, Any]:
    """Make, trace and split one model; a model that prints like an earlier one is not traced."""
    start = time.perf_counter()
    row: dict[str, Any] = {"name": name, "ok": False}
    signal.alarm(seconds)
    try:
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=0)
            row["alike"] = likeness(model)
            if row["alike"] in first:
                row |= {"ok": True, "same_as": first[row["alike"]]}
            else:
                row |= {"layers": plan_anything(model), "ok": True}
                first[row["alike"]] = name
    except (Exception, TooSlow) as error:  # whatever a model raises is the result
        cause = error.__cause__ if isinstance(error, BackboneError) else None
        row["error"] = f"{type(error).__name__}: {error}"[:600]
        if cause is not None:
            row["cause"] = f"{type(cause).__name__}: {cause}"[:300]
    finally:
        signal.alarm(0)
    return row | {"seconds": round(time.perf_counter() - start, 2)}


def likeness(model: nn.Module) -> str:
    """Digest what tells architectures apart: class, modules, shapes and input size."""
    shapes = [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
    size = getattr(model, "default_cfg", {}).get("input_size")
    text = f"{type(model).__qualname__} {size} {model} {shapes}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plan_anything(model: nn.Module) -> int:
    """Lay out a random split and write its functions; return the number of layers."""
    traced = trace(model)
    layers = layer_names(traced)
    split = random_split(list(layers))
    partitions = {
        name: from_groups(groups, split.tasks)
        for layer, groups in split.layers.items()
        for name in layers[layer]
    }
    effects = {training: no_effects(traced, training) for training in traced.graphs}
    layout = lay_out(traced, effects, split.tasks, partitions)
    for graph in traced.graphs.values():
        compile_forward(emit(graph, layout, tuple(range(len(split.tasks)))), "sweep")
    return len(layers)


def no_effects(traced: Trace, training: bool) -> Effects:
    """Assume that no node writes into anything."""
    nodes = list(traced.graphs[training].nodes)
    nothing = dict.fromkeys(nodes, NOTHING)
    return Effects(set(nodes), nothing, nothing, nothing)


def summarise(rows: list[dict[str, Any]]) -> None:
    """Print how many went and why the others did not."""
    console = Console()
    failed = [row for row in rows if not row["ok"]]
    alike = sum("same_as" in row for row in rows)
    console.print(
        f"{len(rows) - len(failed)} of {len(rows)} models traced and laid out "
        f"({alike} of them alike to an earlier one)"
    )
    for reason, count in Counter(row["error"][:160] for row in failed).most_common():
        names = [row["name"] for row in failed if row["error"][:160] == reason]
        console.print(f"{count:4d}  {reason}\n      {', '.join(names[:12])}", markup=False)


if __name__ == "__main__":
    main()
