"""What a split network costs to train, to deploy and to build. Ratios of medians, one thread.

    python tests/benchmarks/bench_branch.py --json branch.json

What counts is the process's CPU time, and everything compared is timed in turns: other work on the
machine hardly changes the ratios.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from recon_search.graph.branch import branch
from recon_search.graph.layers import layers
from recon_search.graph.split import Split

TASKS = ("first", "second")
BACKBONES = {  # arguments and input size
    "resnet18": ({}, 64),
    "vit_tiny_patch16_224": ({"img_size": 64}, 64),
    "mobilenetv2_100": ({}, 64),
    "convnext_atto": ({}, 64),
}
BUILDS = ("resnet18", "resnet50", "resnet101")
WIDTH = 3  # layers of a split


def main() -> None:
    """Measure, print one table and write the numbers if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", choices=BACKBONES, nargs="+", default=list(BACKBONES))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15, help="timings of each variant")
    parser.add_argument("--json", type=Path, help="write the rows there, too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [
        row
        for name in args.backbone
        for row in (*training_rows(name, args.batch, args.rounds), single_row(name, args.rounds))
    ]
    rows += build_rows(max(3, args.rounds // 5))
    show(rows)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


def training_rows(name: str, batch: int, rounds: int) -> list[dict[str, Any]]:
    """Time forward and backward of split networks relative to one model and to one a task."""
    arguments, size = BACKBONES[name]
    model = timm.create_model(name, num_classes=0, **arguments).train()
    x = torch.randn(batch, 3, size, size)
    names = list(layers(model))
    middle = (len(names) - WIDTH) // 2
    chosen = {
        "early": names[:WIDTH],
        "middle": names[middle : middle + WIDTH],
        "late": names[-WIDTH:],
    }
    separate = nn.ModuleList([copy.deepcopy(model) for _ in TASKS])
    calls: dict[str, Callable[[], object]] = {"unsplit": lambda: step([model], x)}
    for where, layer_names in chosen.items():
        network = branch(model, Split.private(layer_names, TASKS), example=x[:2])
        calls[f"split {where}"] = lambda network=network: step([network], x)  # type: ignore[misc]
    calls["separate models"] = lambda: step(separate, x)
    times = interleave(calls, rounds)
    whole = statistics.median(times["separate models"])
    return [
        {
            **ratio_row(name, f"train step, {variant}", times[variant], times["unsplit"]),
            "of_separate": statistics.median(times[variant]) / whole,
        }
        for variant in calls
        if variant != "unsplit"
    ]


def step(modules: list[nn.Module] | nn.ModuleList, x: Tensor) -> None:
    """Run forward and backward of the sum of all outputs."""
    outputs = [module(x) for module in modules]
    flat = [
        value
        for output in outputs
        for value in (output.values() if isinstance(output, dict) else [output])
    ]
    loss = torch.stack([value.square().mean() for value in flat]).sum()
    torch.autograd.backward(loss)


def single_row(name: str, rounds: int) -> dict[str, Any]:
    """Time one task's extracted model in evaluation mode relative to the original."""
    arguments, size = BACKBONES[name]
    model = timm.create_model(name, num_classes=0, **arguments).eval()
    x = torch.randn(4, 3, size, size)
    single = branch(model, Split.private(list(layers(model))[:WIDTH], TASKS), example=x).single(
        TASKS[1]
    )

    def run(module: nn.Module) -> None:
        with torch.inference_mode():
            module(x)

    times = interleave({"eager": lambda: run(model), "single": lambda: run(single)}, 2 * rounds)
    return ratio_row(name, "inference, single(task)", times["single"], times["eager"])


def build_rows(rounds: int) -> list[dict[str, Any]]:
    """Time `branch` itself, per node of the graph."""
    rows = []
    for name in BUILDS:
        model = timm.create_model(name, num_classes=0)
        x = torch.zeros(2, 3, 64, 64)
        split = Split.private(list(layers(model))[:WIDTH], TASKS)
        network = branch(model, split, example=x)
        n_nodes = len(network.blueprint.graphs[True].nodes)
        times = interleave(
            {name: lambda model=model, split=split, x=x: branch(model, split, example=x)},  # type: ignore[misc]
            rounds,
        )[name]
        per_node = sorted(1000 * seconds / n_nodes for seconds in times)
        rows.append(
            {
                "backbone": name,
                "what": f"build, {n_nodes} nodes",
                "unit": "ms/node",
                "seconds": statistics.median(times),
                **spread(per_node),
            }
        )
    return rows


def interleave(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time every call once a round, in turns, after two rounds that do not count."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 2):
        for name, call in calls.items():
            gc.collect()
            start = time.process_time()
            call()
            if number >= 2:
                times[name].append(time.process_time() - start)
    return times


def ratio_row(
    backbone: str, what: str, times: list[float], reference: list[float]
) -> dict[str, Any]:
    """Divide medians; the spread is that of the ratios round by round."""
    ratios = sorted(a / b for a, b in zip(times, reference, strict=True))
    seconds = statistics.median(times)
    row = {"backbone": backbone, "what": what, "unit": "ratio", "seconds": seconds}
    return {**row, **spread(ratios), "median": seconds / statistics.median(reference)}


def spread(values: list[float]) -> dict[str, float]:
    """Return median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": median, "low": low, "high": high}


def show(rows: list[dict[str, Any]]) -> None:
    """Print one table: a ratio of medians (or time per node) and the quartiles over rounds."""
    table = Table("backbone", "measured", "unit", title="recon_search.graph, one thread, T = 2")
    for title in ("median", "quartiles", "of separate", "seconds"):
        table.add_column(title, justify="right")
    for row in rows:
        quartiles = f"{row['low']:.2f} to {row['high']:.2f}"
        whole = f"{row['of_separate']:.2f}" if "of_separate" in row else ""
        numbers = (f"{row['median']:.2f}", quartiles, whole, f"{row['seconds']:.4f}")
        table.add_row(row["backbone"], row["what"], row["unit"], *numbers)
    console = Console()
    (console if console.is_terminal else Console(width=100)).print(table)


if __name__ == "__main__":
    main()
