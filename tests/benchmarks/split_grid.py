"""Every split of a grid over rule and k, trained over several seeds, as a table to search on.

    python -m tests.benchmarks.split_grid RECIPE --out FOLDER --json FILE [--ks 0 1 2 ...] \
        [--rules projection count] [--seeds 8] [--workers 1] [--set PATH=VALUE]

The trainings lie in FOLDER: the same command goes on where it was killed. All splits are trained
over one seed before the next begins, and FILE is written after every seed with those that are
complete, so what is there can be used at any time (see `bench_search`).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from recon_search import artefact
from recon_search.conflict.scores import ConflictScores
from recon_search.graph.split import Split
from recon_search.recipe import Recipe, load_recipe
from recon_search.runs.pool import train_all
from recon_search.runs.result import Result
from recon_search.runs.run import Run
from recon_search.runs.training import Training
from recon_search.search.space import first_trials, make_space, with_values
from recon_search.stages.baselines import judged_tasks
from recon_search.stages.probe import probe
from recon_search.stages.split import choose_split
from recon_search.tasks.scoring import delta_m, loss_gain, measured
from recon_search.tasks.task import Metrics, directions
from recon_search.views.display import ConsoleListener
from tests.benchmarks.evidence import ROOT, processor

KS = (0, 1, 2, 3, 5, 8, 13, 20, 32)
"""Closer where the first layers are, which matter most where they are ranked well."""


@dataclass(frozen=True)
class Point:
    """One way to come to a split.

    Attributes:
        rule: that ranks the layers.
        k: how many of them are asked for.
        split: that they make.
    """

    rule: str
    k: int
    split: Split


def grid_points(recipe: Recipe, scores: ConflictScores, rules: list[str], ks: list[int]) -> Any:
    """The splits of the grid, by rule and k."""
    return [
        Point(
            rule, k, choose_split(with_values(recipe, {"split.rule": rule, "split.k": k}), scores)
        )
        for rule in rules
        for k in ks
    ]


def guesses_on(points: list[Point], recipe: Recipe, scores: ConflictScores) -> list[dict[str, Any]]:
    """The first guesses of a search, moved to the nearest point of the grid."""
    found = []
    for guess in first_trials(recipe, scores, make_space(recipe, scores)):
        rule = guess.get("split.rule", points[0].rule)
        near = [point for point in points if point.rule == rule]
        if near:
            best = min(near, key=lambda point: abs(point.k - guess["split.k"]))
            found.append({"rule": best.rule, "k": best.k})
    return found


def trainings_of(points: list[Point], run: Run, seed: int) -> tuple[list[Training], list[Training]]:
    """The single-task baselines of a seed, one a task, and the trainings of all points."""
    recipe, tasks = run.recipe, run.schema.names
    joint = recipe.train.model_copy(update={"method": "joint", "weights": {}})
    single = [
        Training(
            (task.name,), None, joint, recipe.backbone, seed, f"single {task.name}", test=False
        )
        for task in judged_tasks(run)
    ]
    split = [
        Training(
            tasks,
            point.split if point.split.layers else None,
            recipe.train,
            recipe.backbone,
            seed,
            f"{point.rule} {point.k}",
            test=False,
            copies=recipe.split.copies,
        )
        for point in points
    ]
    return single, split


def judge(run: Run, result: Result, single: Metrics) -> dict[str, list[float]]:
    """Validation delta_m and gain in loss after every epoch, in percent."""
    judged_by, average = directions(judged_tasks(run)), run.recipe.compare.delta_m
    judged_by = measured(judged_by, [single])
    epochs = [record["validation"] for record in result.history()]
    return {
        "delta_m": [round(delta_m(each, single, judged_by, average), 4) for each in epochs],
        "loss": [round(loss_gain(each, single), 4) for each in epochs],
    }


def main() -> None:
    """Train the grid seed by seed; write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--ks", type=int, nargs="+", default=list(KS))
    parser.add_argument("--rules", nargs="+", default=["projection", "count"])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load_recipe(arguments.recipe, arguments.set)
    listener = ConsoleListener(Console(width=120))
    run = Run(recipe, arguments.out, workers=arguments.workers, listener=listener)
    scores = probe(run)
    points = grid_points(recipe, scores, arguments.rules, arguments.ks)
    place = {digest: n for n, digest in enumerate(dict.fromkeys(p.split.digest for p in points))}
    splits: list[dict[str, Any]] = [
        {"layers": 0, "delta_m": [], "loss": [], "seconds": []} for _ in place
    ]
    table = {
        "command": f"python -m tests.benchmarks.split_grid {' '.join(sys.argv[1:])}",
        "commit": commit(),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "timm", "optuna")},
        "epochs": recipe.train.epochs,
        "seeds": [],
        "trainings": 0,
        "points": [{"rule": p.rule, "k": p.k, "split": place[p.split.digest]} for p in points],
        "guesses": guesses_on(points, recipe, scores),
        "splits": splits,
    }
    for seed in range(recipe.seed, recipe.seed + arguments.seeds):
        single, training = trainings_of(points, run, seed)
        results = train_all([*single, *training], run, f"seed {seed}")
        baselines: Metrics = {}
        for result in results[: len(single)]:
            baselines |= result.validation
        found = {p.split.digest: r for p, r in zip(points, results[len(single) :], strict=True)}
        for digest, result in found.items():
            split = splits[place[digest]]
            for name, values in judge(run, result, baselines).items():
                split[name].append(values)
            split["seconds"].append(result.seconds)
        for point in points:
            splits[place[point.split.digest]]["layers"] = len(point.split.layers)
        table["seeds"].append(seed)
        table["trainings"] += len(single) + len(found)
        artefact.write_json(arguments.json, table)


def commit() -> str:
    """The commit of the code."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


if __name__ == "__main__":
    main()
