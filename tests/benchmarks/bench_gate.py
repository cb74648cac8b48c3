"""Whether the gate says "do not split" where no split helps.

    python -m tests.benchmarks.bench_gate --out FOLDER [--cases NAME ...] [--seeds 8]
        [--data-root FOLDER] [--workers 2] [--max-hours H] [--set PATH=VALUE]

Every case is a recipe: probed, split as it says, and compared with joint and single-task training
over paired seeds. One line each: the gate's signal and what it advises; the measured benefit of the
split, delta_m minus joint training's, with its interval; whether the advice was right. A benefit
counts as one where the whole interval lies above 0, as none where it lies below 1 point.

What is trained is kept in FOLDER, and so is `gate.json` after every case: the same command goes on.
The first cases are of the same pairs of digits: two digits, one task each; the same task twice,
where no split should help; a digit and whether it is odd.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import recon_search as rs
from recon_search import artefact
from recon_search.conflict.gate import Gate, measure_gate
from recon_search.data.registry import find_source
from recon_search.data.task_data import TaskData
from recon_search.recipe import DataConfig, Recipe, load_recipe
from recon_search.runs.comparison import Comparison
from recon_search.runs.deadline import Deadline
from recon_search.runs.run import Run
from recon_search.runs.verdict import RELEVANT
from recon_search.stages.compare import compare
from recon_search.stages.probe import probe
from recon_search.stages.split import choose_split, reading_of
from recon_search.views.display import ConsoleListener

FORMAT = "recon-search/gate-trials/1"

SIZES = {"train": 6400, "validation": 1000, "test": 4000, "canvas": 24}


def relabelled(second: str, train: int, validation: int, test: int, canvas: int) -> TaskData:
    """Return pairs of digits of which the left one is learned, and something else of it.

    Args:
        second: `twice`, the left digit once more; or `odd`, whether it is odd.
        train: pairs of a part, and so the others.
        validation: see `train`.
        test: see `train`.
        canvas: side of the images.
    """
    config = DataConfig(
        name="multi-digits", train=train, validation=validation, test=test, canvas=canvas
    )
    feed = find_source(config).open("cpu")
    parts = {
        name: [
            (image, {"left": label, second: label % 2 if second == "odd" else label})
            for image, label in zip(part.inputs, part.targets["left"], strict=True)
        ]
        for name, part in feed.parts.items()
    }
    tasks = rs.Classes("left", 10), rs.Classes(second, 2 if second == "odd" else 10)
    return TaskData(tasks, parts)


def _of_digits(second: str) -> dict[str, Any]:
    factory = "tests.benchmarks.bench_gate:relabelled"
    return {"name": "factory", "factory": factory, "args": {"second": second, **SIZES}}


CASES: dict[str, tuple[str, dict[str, Any] | None]] = {
    "multi-digits": ("quickstart", None),
    "the same twice": ("quickstart", _of_digits("twice")),
    "digit and odd": ("quickstart", _of_digits("odd")),
    "scenes": ("scenes", None),
    "multi-fashion-mnist": ("multi-fashion-mnist-small", None),
}
"""By name the recipe, and its data where these are others."""


def recipe_of(case: str, arguments: argparse.Namespace) -> Recipe:
    """The recipe of a case, without controls."""
    name, data = CASES[case]
    recipe = load_recipe(name)
    raw = recipe.model_dump(mode="json", exclude_defaults=True)
    raw["compare"] = {"methods": ["joint"], "controls": [], "seeds": arguments.seeds}
    raw["data"] = raw["data"] if data is None else data
    if arguments.data_root is not None and case == "multi-fashion-mnist":
        raw["data"]["root"] = str(arguments.data_root)
    path = arguments.out / case / "case.json"
    artefact.write_json(path, raw)
    return load_recipe(path, arguments.set)


def measure(case: str, recipe: Recipe, arguments: argparse.Namespace) -> dict[str, Any]:
    """Probe, split and compare; the line of a case."""
    listener = ConsoleListener(Console(width=110))
    deadline = None if arguments.max_hours is None else Deadline.after(arguments.max_hours)
    folder = arguments.out / case
    run = Run(recipe, folder, workers=arguments.workers, listener=listener, deadline=deadline)
    scores = probe(run)
    split = choose_split(recipe, scores, schema=run.schema)
    gate = measure_gate(scores, recipe.split.rule, reading_of(recipe), len(split.layers))
    return line_of(case, gate, compare(run, split, scores))


def line_of(case: str, gate: Gate, found: Comparison) -> dict[str, Any]:
    """What is kept of a case."""
    joint = next(row for row in found.rows if row.role == "joint")
    assert joint.minus_split is not None
    ends = joint.minus_split.interval
    interval = None if ends is None else (-ends[1], -ends[0])
    helps = None
    if interval is not None:
        helps = True if interval[0] > 0 else False if interval[1] < RELEVANT else None
    advised = {"split": True, "do not split": False, "cannot tell": None}[gate.advice]
    return {
        "case": case,
        "gate": {**asdict(gate), "advice": gate.advice},
        "benefit": -joint.minus_split.mean,
        "interval": interval,
        "helps": helps,
        "right": None if helps is None or advised is None else helps == advised,
        "seeds": found.seeds,
    }


def table_of(lines: Mapping[str, Mapping[str, Any]]) -> Table:
    """All cases so far."""
    table = Table(title="The gate on trial", title_justify="left")
    for heading in ("case", "share of conflict", "advice", "benefit", "helps", "right"):
        table.add_column(heading, justify="left" if heading in ("case", "advice") else "right")
    words = {True: "yes", False: "no", None: "not told"}
    for case, line in lines.items():
        gate, interval = line["gate"], line["interval"]
        low, high = gate["interval"]
        ends = "" if interval is None else f" [{interval[0]:+.2f}, {interval[1]:+.2f}]"
        table.add_row(
            case,
            f"{gate['share']:.2f} ({low:.2f} to {high:.2f})",
            gate["advice"],
            f"{line['benefit']:+.2f}{ends}".replace("[", r"\["),
            words[line["helps"]],
            words[line["right"]],
        )
    return table


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES)[:4])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--max-hours", type=float)
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    arguments = parser.parse_args()
    path = arguments.out / "gate.json"
    known = json.loads(path.read_text("utf-8"))["cases"] if path.is_file() else {}
    for case in arguments.cases:
        known[case] = measure(case, recipe_of(case, arguments), arguments)
        artefact.write_json(path, {"format": FORMAT, "cases": known})
        Console(width=110).print(table_of(known))


if __name__ == "__main__":
    main()
