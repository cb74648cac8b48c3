"""What a search spends to come near the best of the whole grid over k and S.

    python -m tests.benchmarks.bench_search RECIPE --out FOLDER --json FILE \
        [--ks 0 45 3] [--thresholds -0.4 0 0.1] [--searches 20] [--rule count] [--set PATH=VALUE]

First every split of the grid is trained, each once, with the baselines. Then searches over the same
grid run with different seeds of the sampler; what they ask for has been trained already, so they
take seconds, but every epoch that they would have trained is counted, those of pruned trials too.
Printed are the epochs and the training time until a completed trial comes within 0.1 and within 0.5
delta_m of the grid's best, as a share of the grid's, for searches with and without pruning and for
trials drawn at random; 1 for a search that has not come there at the cost of the grid. Printed,
too, is Spearman's correlation of the splits' delta_m after each epoch with that in the end, which
is what pruning goes by.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import sqlalchemy
import torch
from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from recon_search import artefact
from recon_search.conflict.scores import ConflictScores
from recon_search.recipe import Recipe, load_recipe
from recon_search.runs.run import Run
from recon_search.search.ledger import Ledger
from recon_search.search.sampling import make_pruner, make_sampler
from recon_search.search.space import first_trials, make_space
from recon_search.search.tally import tally
from recon_search.stages.probe import probe
from recon_search.stages.trial import NotNeeded, Objective
from recon_search.views.display import ConsoleListener

PRUNERS = {"by TPE, halving": "halving", "by TPE, hyperband": "hyperband", "by TPE": "none"}
KINDS = (*PRUNERS, "at random")


def grid_recipe(recipe: Recipe, arguments: argparse.Namespace) -> Recipe:
    """The recipe with the grid as its search space."""
    first, last, step = arguments.ks
    low, high, width = arguments.thresholds
    thresholds = [round(float(s), 2) for s in np.arange(low, high + width / 2, width)]
    space = {
        "split.rule": [arguments.rule],
        "split.k": {"low": first, "high": last, "step": step},
        "split.threshold": [min(s, 0.0) for s in thresholds],
    }
    raw = recipe.model_dump(mode="json")
    raw["search"] |= {"space": space, "trials": 10_000}
    return Recipe.model_validate_json(json.dumps(raw))


def make_objective(recipe: Recipe, out: Path, study: optuna.Study) -> Objective:
    """What the searches maximise, with a ledger of its own that is forgotten."""
    scores = ConflictScores.load(out / "scores.safetensors")
    engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.pool.StaticPool)
    ledger = Ledger(engine, study.study_name)
    space = make_space(recipe, scores)
    return Objective(Run(recipe, out), scores, space, study, ledger, limit=10**9)


def train_grid(recipe: Recipe, out: Path, console: Console) -> dict[str, dict[str, Any]]:
    """Train every distinct split of the grid.

    Returns:
        By training: validation delta_m, in the end and after each epoch, and seconds.
    """
    nothing = optuna.pruners.NopPruner()
    study = optuna.create_study(direction="maximize", pruner=nothing)
    objective = make_objective(recipe, out, study)
    ks, thresholds = (objective.space[path] for path in ("split.k", "split.threshold"))
    for k in range(ks.low, ks.high + 1, ks.step):
        for threshold in thresholds:
            study.enqueue_trial({"split.k": k, "split.threshold": threshold})
    n_points = len(study.trials)
    with console.status("grid") as status:
        for index in range(n_points):
            study.optimize(objective, n_trials=1)
            status.update(f"grid {index + 1}/{n_points}: {study.trials[index].value:+.2f}")
    found = {}
    for trial in study.trials:
        key = trial.user_attrs["training"]
        by_epoch = [trial.intermediate_values[e + 1] for e in range(recipe.train.epochs)]
        found[key] = {"delta_m": trial.value, "seconds": seconds_of(key, out), "epochs": by_epoch}
    return found


def seconds_of(key: str, out: Path) -> float:
    """How long a training took."""
    result = artefact.read_json(out / "trainings" / key / "result.json", "result")
    return float(result["seconds"])


def search_once(
    recipe: Recipe, out: Path, grid: dict[str, dict[str, Any]], kind: str, seed: int
) -> list[list[float]]:
    """Search until it has cost as much as the grid, or found its best.

    Returns:
        For every split trained: epochs and seconds spent so far, best delta_m completed so far.
    """
    pruner = PRUNERS.get(kind, "none")
    settings = recipe.search.model_copy(update={"seed": 10**6 * seed, "pruner": pruner})
    recipe = recipe.model_copy(update={"search": settings})
    name = f"{kind} {seed}"  # Hyperband deals its brackets by it
    study = optuna.create_study(study_name=name, direction="maximize", pruner=make_pruner(recipe))
    objective = make_objective(recipe, out, study)
    if kind != "at random":
        for guess in first_trials(recipe, objective.scores, objective.space):
            study.enqueue_trial(guess)
    goal = max(point["delta_m"] for point in grid.values())
    epochs, spent, best, known = 0, 0.0, float("-inf"), set()
    path = []
    while best < goal and epochs < len(grid) * recipe.train.epochs:
        if tally(study.get_trials(deepcopy=False)).is_exhausted:
            break
        n_trials = len(study.trials)
        study.sampler = make_sampler(recipe, n_trials)
        if kind == "at random":
            study.sampler = optuna.samplers.RandomSampler(seed=10**6 * seed + n_trials)
        study.optimize(objective, n_trials=1, catch=(NotNeeded,))
        trial = max(
            (t for t in study.get_trials(deepcopy=False) if t.state.is_finished()),
            key=lambda t: t.datetime_complete,
        )
        key = trial.user_attrs["training"]
        if key in known:
            continue
        known.add(key)
        epochs += trial.user_attrs["epochs"]
        spent += seconds_of(key, out) * trial.user_attrs["epochs"] / recipe.train.epochs
        if trial.state == TrialState.COMPLETE:
            best = max(best, trial.value)
        path.append([epochs, spent, best])
    return path


def share(path: list[list[float]], what: int, goal: float, whole: float) -> float:
    """What a search had spent when it first came to the goal, as a share; 1 if it did not."""
    return min([1.0, *(row[what] / whole for row in path if row[2] >= goal)])


def main() -> None:
    """Train the grid, search it many times, print the shares."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--ks", type=int, nargs=3, default=[0, 45, 3])
    parser.add_argument("--thresholds", type=float, nargs=3, default=[-0.4, 0.0, 0.1])
    parser.add_argument("--rule", default="count")
    parser.add_argument("--near", type=float, nargs="+", default=[0.1, 0.5], help="delta_m")
    parser.add_argument("--searches", type=int, default=20)
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    console = Console(width=120)
    recipe = grid_recipe(load_recipe(arguments.recipe, arguments.set), arguments)
    probe(Run(recipe, arguments.out, listener=ConsoleListener(console)))
    grid = train_grid(recipe, arguments.out, console)
    values = sorted((point["delta_m"] for point in grid.values()), reverse=True)
    best = values[0]
    console.print(
        f"{len(grid)} distinct splits; validation delta_m from {values[-1]:+.2f} to {best:+.2f}; "
        + ", ".join(f"{sum(v >= best - n for v in values)} within {n}" for n in arguments.near)
        + " of the best"
    )
    last = [point["delta_m"] for point in grid.values()]
    by_epoch = zip(*(point["epochs"] for point in grid.values()), strict=True)
    correlations = [float(spearmanr(values, last).statistic) for values in by_epoch]
    console.print("Spearman with the end, by epoch: " + ", ".join(f"{c:.2f}" for c in correlations))
    found = {
        kind: [
            search_once(recipe, arguments.out, grid, kind, seed)
            for seed in range(arguments.searches)
        ]
        for kind in KINDS
    }
    artefact.write_json(arguments.json, {"grid": grid, "searches": found})
    epochs = float(len(grid) * recipe.train.epochs)
    seconds = sum(point["seconds"] for point in grid.values())
    table = Table(title="Share of the grid, median (quartiles)", title_justify="left")
    for column in ("trials drawn", "within", "epochs", "time", "came there"):
        table.add_column(column, justify="left" if column == "trials drawn" else "right")
    for kind, paths in found.items():
        for near in arguments.near:
            goal = best - near
            arrived = sum(bool(path) and path[-1][2] >= goal for path in paths)
            table.add_row(
                kind,
                str(near),
                spread([share(path, 0, goal, epochs) for path in paths]),
                spread([share(path, 1, goal, seconds) for path in paths]),
                f"{arrived}/{len(paths)}",
            )
    console.print(table)


def spread(shares: list[float]) -> str:
    """Median and quartiles, percent."""
    low, middle, high = (100 * share for share in statistics.quantiles(shares, n=4))
    return f"{middle:.1f} % ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    main()
