"""Whether a probe knows how far its ranking can be trusted.

    python -m tests.benchmarks.bench_stability RECIPE --out FOLDER [--seeds 24] [--set PATH=VALUE]

The recipe's probe is run over many seeds, each kept apart. Groups of 1, 2, 4 ... of them stand for
probes of so many seeds. For every rule, k and size of group are printed: the share of the top k
that, as the tool says, another such probe would share (mean over groups), and the share that two
groups without a common seed do share (mean over pairs, and its standard deviation).
"""

from __future__ import annotations

import argparse
import random
import statistics
from functools import reduce
from operator import add
from pathlib import Path

from rich.console import Console
from rich.table import Table

from recon_search.conflict.reliability import measure_reliability
from recon_search.conflict.rules import Reading, rank
from recon_search.conflict.scores import ConflictScores
from recon_search.recipe import load_recipe
from recon_search.runs.pool import train_all
from recon_search.runs.run import Run
from recon_search.stages.probe import probe_training
from recon_search.views.display import ConsoleListener


def judge(
    seeds: list[ConflictScores], size: int, rule: str, reading: Reading, k: int, n_pairs: int
) -> tuple[list[float], list[float]]:
    """What groups of seeds say, and what pairs of groups share."""
    draw = random.Random(0)
    said, shared = [], []
    for _ in range(n_pairs):
        drawn = draw.sample(seeds, 2 * size)
        groups = [reduce(add, part) for part in (drawn[:size], drawn[size:])]
        said += [measure_reliability(group, rule, reading, k).stability for group in groups]
        tops = [{layer for layer, _ in rank(group, rule, reading)[:k]} for group in groups]
        shared.append(len(tops[0] & tops[1]) / k)
    return said, shared


def main() -> None:
    """Probe, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rules", nargs="+", default=["projection", "mass", "count"])
    parser.add_argument("--ks", type=int, nargs="+", default=[3, 20])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--data-root")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    arguments = parser.parse_args()
    overrides = list(arguments.set)
    if arguments.data_root:
        overrides.append(f'data.root="{arguments.data_root}"')
    recipe = load_recipe(arguments.recipe, overrides)
    console = Console(width=110)
    run = Run(recipe, arguments.out, listener=ConsoleListener(console))
    trainings = [probe_training(run, seed) for seed in range(arguments.seeds)]
    results = train_all(trainings, run, "probe")
    seeds = [ConflictScores.load(result.directory / "scores.safetensors") for result in results]
    reading = Reading(recipe.split.threshold, recipe.probe.window)
    table = Table(title=f"{seeds[0].steps} measured steps a seed", title_justify="left")
    for column in ("rule", "k", "seeds", "foretold", "found"):
        table.add_column(column, justify="left" if column == "rule" else "right")
    for rule in arguments.rules:
        for k in arguments.ks:
            for size in arguments.sizes:
                said, shared = judge(seeds, size, rule, reading, k, arguments.pairs)
                numbers = (spread(values) for values in (said, shared))
                table.add_row(rule, str(k), str(size), *numbers)
    console.print(table)


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}"


if __name__ == "__main__":
    main()
