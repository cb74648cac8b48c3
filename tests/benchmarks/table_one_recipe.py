"""What Recon's first table asks for: rows, recipe, and the words of the command."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recon_search.recipe import Recipe, load_recipe
from tests.benchmarks.evidence import RESULTS, ROOT

RECIPE = ROOT / "recipes" / "multi-fashion-mnist.toml"
PUBLISHED = "published:recon-multi-fashion-mnist"
IN_PUBLISHED_ORDER = "split in the published order"

METHODS = ["joint", "mgda", "pcgrad", "graddrop", "cagrad", "rotograd"]
CONTROLS = [
    "norm-only",
    "norm-gates",
    "random",
    "random-params",
    "random-flops",
    "first-k",
    "least",
]
CONTROLS += ["smallest-first", "wider", "sparse", "low-rank", "tuned-weights"]

KEYS = {
    "split.rule": "projection",
    "compare.methods": METHODS,
    "compare.controls": CONTROLS,
    "compare.rules": ["count"],  # Recon's own, read from our probe
    "train.method": "cagrad",  # whose options these are; rows name their methods themselves
    "train.options": {"c": 0.2},  # the paper's alpha on this benchmark
}
"""What the table asks for beyond the recipe."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="The paper's first table, in sittings.")
    parser.add_argument("recipe", nargs="?", default=RECIPE, type=Path)
    parser.add_argument("--data-root", type=Path, help="folder with mnist and fashion-mnist")
    parser.add_argument("--out", type=Path, default=Path("runs/table-one"))
    parser.add_argument("--results", type=Path, default=RESULTS / "table-one.json")
    parser.add_argument("--max-minutes", type=float, help="end in order before that")
    parser.add_argument("--workers", type=int, help="trainings at once [1 on a GPU]")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    parser.add_argument("--list", action="store_true", help="train nothing, say what is left")
    options = parser.parse_args(arguments)
    options.command = shlex.join(["python", "-m", "tests.benchmarks.table_one", *arguments])
    return options


def recipe_of(options: argparse.Namespace) -> Recipe:
    """The recipe with the rows of the table."""
    given = [*options.set, f"compare.seeds={options.seeds}"]
    if options.data_root is not None:
        given.append(f"data.root={json.dumps(str(options.data_root.resolve()))}")
    k = load_recipe(options.recipe, given).split.k
    keys = {**KEYS, "compare.ks": [k]}
    return load_recipe(options.recipe, [*(f"{key}={_toml(v)}" for key, v in keys.items()), *given])


def _toml(value: Any) -> str:
    """A value as `--set` reads it."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value)
