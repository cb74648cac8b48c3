"""What a search saves and what it returns: searches replayed on a table of trained splits.

    python -m tests.benchmarks.bench_search TABLE --json FILE [--searches 100] [--own 4]

TABLE is what `split_grid` has written, or a FILE of this one; no network is trained here. Every
repetition deals the table's seeds anew: some are the search's own, over the others what it returns
is judged, so a split that was lucky in the search has no luck left. Every way of searching gets the
same deals, and spends epochs, of which those of pruned trials count too; the baselines', which all
need, do not.

Written are, for every way of searching: the share of the grid's epochs (all splits over the
search's own seeds) after which what the search would return is, and remains, within so many points
of delta_m of the split that is best over the other seeds, 1 where that never is; and how far what
it would return lies below that split after so much of the grid's epochs.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial
from scipy.stats import spearmanr

from recon_search import seals
from recon_search.recipe import Recipe, load_recipe
from recon_search.search.rungs import climb, tell
from recon_search.search.sampling import is_paired, make_pruner, make_sampler
from recon_search.search.tally import tally

MEASURES = ("delta_m", "loss")
SAMPLERS = ("TPE", "random")
WAYS = {
    "one seed": {"seeds": 1, "pruner": "none"},
    "one seed, halving over epochs": {"seeds": 1, "pruner": "halving"},
    "all seeds": {"pruner": "none"},
    "halving over seeds": {"pruner": "halving"},
    "Wilcoxon over seeds": {"pruner": "wilcoxon"},
}
"""Keys of `[search]`; where no seeds are named, all of the search's own."""
BUDGETS = (0.1, 0.2, 0.3, 0.5, 1.0)
NEAR = (0.1, 0.5)


@dataclass(frozen=True)
class Grid:
    """The table as arrays.

    Attributes:
        values: by measure, of each split, seed and epoch: (N, R, E).
        points: place of the split by rule and place of k.
        rules: in order.
        ks: in order.
        guesses: rule and place of k that a search begins with.
    """

    values: dict[str, np.ndarray]
    points: dict[tuple[str, int], int]
    rules: list[str]
    ks: list[int]
    guesses: list[dict[str, Any]]

    @classmethod
    def of(cls, table: dict[str, Any]) -> Grid:
        """Read what `split_grid` wrote."""
        rules = list(dict.fromkeys(point["rule"] for point in table["points"]))
        ks = sorted({point["k"] for point in table["points"]})
        return cls(
            {name: np.array([s[name] for s in table["splits"]]) for name in MEASURES},
            {(p["rule"], ks.index(p["k"])): p["split"] for p in table["points"]},
            rules,
            ks,
            [{"rule": g["rule"], "place": ks.index(g["k"])} for g in table["guesses"]],
        )

    @property
    def n_splits(self) -> int:
        """Number of distinct splits."""
        return len(self.values["loss"])

    @property
    def unsplit(self) -> int:
        """The split that has no layer: what a search returns that has nothing to return."""
        return self.points[self.rules[0], 0]


def replay(
    grid: Grid, recipe: Recipe, measure: str, sampler: str, own: Sequence[int], draw: int
) -> list[tuple[int, int]]:
    """Search the grid until it is known, or has cost as much as it.

    Args:
        grid: the grid.
        recipe: whose `[search]` says how.
        measure: that the search maximises.
        sampler: see `SAMPLERS`.
        own: the seeds it may train, in order.
        draw: tells repetitions apart.

    Returns:
        After each trial that trained something: epochs spent, and the split it would return.
    """
    values = grid.values[measure]
    n_epochs, n_seeds = values.shape[2], recipe.search.seeds
    study = optuna.create_study(direction="maximize", pruner=make_pruner(recipe))
    known: dict[int, tuple[list[float], bool]] = {}
    spent, path, best = 0, [], (float("-inf"), grid.unsplit)

    def by_epoch(trial: Trial, split: int) -> tuple[list[float], bool]:
        nonlocal spent
        found: list[float] = []
        for epoch, value in enumerate(values[split, own[0]], start=1):
            spent += 1
            found.append(value)
            trial.report(value, epoch)
            if epoch < n_epochs and trial.should_prune():
                return found, True
        return found, False

    def value_of(split: int, place: int) -> float:
        nonlocal spent
        spent += n_epochs
        return float(values[split, own[place], -1])

    def objective(trial: Trial) -> float:
        nonlocal best
        rule = trial.suggest_categorical("rule", grid.rules)
        split = grid.points[rule, trial.suggest_int("place", 0, len(grid.ks) - 1)]
        is_new = split not in known
        if not is_new:
            trial.set_user_attr("same_as", split)
            for step, value in enumerate(known[split][0], start=1):
                if n_seeds > 1:
                    tell(trial, known[split][0][:step], is_paired=is_paired(recipe))
                else:
                    trial.report(value, step)
        elif n_seeds == 1:
            known[split] = by_epoch(trial, split)
        else:
            paired, at = is_paired(recipe), split
            known[split] = climb(trial, n_seeds, lambda n: value_of(at, n), is_paired=paired)
        found, is_pruned = known[split]
        value = statistics.fmean(found) if n_seeds > 1 else found[-1]
        if not is_pruned:
            best = max(best, (value, split))
        if is_new:
            path.append((spent, best[1]))
        if is_pruned:
            raise optuna.TrialPruned
        return value

    if sampler == "TPE":
        for guess in grid.guesses:
            study.enqueue_trial(guess)
    whole = grid.n_splits * len(own) * n_epochs
    trials: list[FrozenTrial] = []
    while len(known) < grid.n_splits and spent < whole and not tally(trials).is_exhausted:
        seeded = recipe.model_copy(
            update={"search": recipe.search.model_copy(update={"seed": 10**6 * draw})}
        )
        study.sampler = (
            make_sampler(seeded, len(trials))
            if sampler == "TPE"
            else optuna.samplers.RandomSampler(seed=10**6 * draw + len(trials))
        )
        study.optimize(objective, n_trials=1)
        trials = study.get_trials(deepcopy=False)
    return path


def arrival(path: list[tuple[int, int]], near: set[int], whole: int) -> float:
    """Share of the grid's epochs from which on what is returned is near the best; 1 if never."""
    share = 1.0
    for spent, split in reversed(path):
        if split not in near:
            break
        share = spent / whole
    return min(share, 1.0)


def returned(path: list[tuple[int, int]], budget: float, unsplit: int) -> int:
    """The split that would be returned once so many epochs are spent."""
    return next((split for spent, split in reversed(path) if spent <= budget), unsplit)


def measure_ways(
    grid: Grid, recipe: Recipe, deals: list[tuple[list[int], list[int]]]
) -> list[dict[str, Any]]:
    """Replay every way of searching over the same deals of seeds."""
    found = []
    for measure in MEASURES:
        for sampler in SAMPLERS:
            for name, keys in WAYS.items():
                settings = {"seeds": len(deals[0][0]), "terminator": False, "patience": 0, **keys}
                own = recipe.model_copy(
                    update={"search": recipe.search.model_copy(update=settings)}
                )
                paths = [
                    replay(grid, own, measure, sampler, seeds, draw)
                    for draw, (seeds, _) in enumerate(deals)
                ]
                said = {"objective": measure, "sampler": sampler, "way": name}
                found.append(said | judge_paths(grid, paths, deals))
                print(json.dumps(found[-1]), flush=True)
    return found


def judge_paths(
    grid: Grid, paths: list[list[tuple[int, int]]], deals: list[tuple[list[int], list[int]]]
) -> dict[str, Any]:
    """Shares and regrets of one way of searching."""
    n_epochs = grid.values["loss"].shape[2]
    whole = grid.n_splits * len(deals[0][0]) * n_epochs
    shares: dict[str, list[float]] = {str(near): [] for near in (*NEAR, "1 se")}
    regrets = {name: {str(budget): [] for budget in BUDGETS} for name in MEASURES}
    for path, (_, others) in zip(paths, deals, strict=True):
        truth = {name: grid.values[name][:, others, -1] for name in MEASURES}
        means = {name: each.mean(axis=1) for name, each in truth.items()}
        best = truth["delta_m"][means["delta_m"].argmax()]
        error = float(best.std(ddof=1) / len(others) ** 0.5)
        gap = means["delta_m"].max() - means["delta_m"]
        for near in (*NEAR, "1 se"):
            within = error if near == "1 se" else near
            shares[str(near)].append(arrival(path, set(np.flatnonzero(gap <= within)), whole))
        for name in MEASURES:
            for budget in BUDGETS:
                split = returned(path, budget * whole, grid.unsplit)
                regrets[name][str(budget)].append(float(means[name].max() - means[name][split]))
    return {
        "spent": round(statistics.fmean(path[-1][0] / whole for path in paths), 3),
        "share": {near: quartiles(each) for near, each in shares.items()},
        "came_there": {near: sum(s < 1 for s in each) for near, each in shares.items()},
        "regret": {
            name: {budget: mean_and_error(each) for budget, each in own.items()}
            for name, own in regrets.items()
        },
    }


def describe_noise(grid: Grid, deals: list[tuple[list[int], list[int]]]) -> dict[str, Any]:
    """What a measure knows of a split, and what picking with it can come to.

    By measure, of the better half of the splits by mean delta_m, among which the choice is made:
    the deviation over seeds once what a seed does to all of them is taken away, that of the splits'
    means beyond it, and Spearman's correlation with delta_m over the other seeds, of one seed after
    each epoch and of all own seeds. Of all splits: the regret of the best over one and over all own
    seeds; and of no choice: the unsplit network, and a split at random.
    """
    found: dict[str, Any] = {}
    overall = grid.values["delta_m"][:, :, -1].mean(axis=1)
    half = np.argsort(-overall)[: -(-grid.n_splits // 2)]
    for name, values in grid.values.items():
        last = values[half, :, -1]
        n_splits, n_seeds = last.shape
        rest = last - last.mean(axis=0) - last.mean(axis=1, keepdims=True) + last.mean()
        within = float((rest**2).sum() / (n_splits - 1) / (n_seeds - 1))
        between = float(last.mean(axis=1).var(ddof=1)) - within / n_seeds
        one, every = [], []
        for own, others in deals:
            truth = grid.values["delta_m"][half][:, others, -1].mean(axis=1)
            by_epoch = values[half, own[0]].T
            one.append([float(spearmanr(each, truth)[0]) for each in by_epoch])
            every.append(float(spearmanr(last[:, own].mean(axis=1), truth)[0]))
        found[name] = {
            "within": round(within**0.5, 3),
            "between": round(max(0.0, between) ** 0.5, 3),
            "foretells_by_epoch": [round(float(v), 3) for v in np.mean(one, axis=0)],
            "foretells_all_seeds": round(statistics.fmean(every), 3),
            "regret_one": mean_and_error([_gap(grid, o, values[:, s[:1], -1]) for s, o in deals]),
            "regret_all": mean_and_error([_gap(grid, o, values[:, s, -1]) for s, o in deals]),
        }
    truths = [grid.values["delta_m"][:, others, -1].mean(axis=1) for _, others in deals]
    found["unsplit"] = mean_and_error([float(t.max() - t[grid.unsplit]) for t in truths])
    found["at random"] = mean_and_error([float(t.max() - t.mean()) for t in truths])
    found["half"] = len(half)
    found["means"] = [round(float(mean), 2) for mean in sorted(overall, reverse=True)]
    return found


def _gap(grid: Grid, others: list[int], values: np.ndarray) -> float:
    truth = grid.values["delta_m"][:, others, -1].mean(axis=1)
    return float(truth.max() - truth[int(values.mean(axis=1).argmax())])


def quartiles(values: list[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return [round(each, 3) for each in statistics.quantiles(values, n=4)]


def mean_and_error(values: list[float]) -> list[float]:
    """Mean, and its standard error over the repetitions."""
    return [
        round(statistics.fmean(values), 3),
        round(statistics.stdev(values) / len(values) ** 0.5, 3),
    ]


def deal(n_seeds: int, n_own: int, n: int) -> list[tuple[list[int], list[int]]]:
    """Deal the seeds n times: the search's own, and the others."""
    shuffle = random.Random(0)
    dealt = [shuffle.sample(range(n_seeds), n_seeds) for _ in range(n)]
    return [(order[:n_own], order[n_own:]) for order in dealt]


def main() -> None:
    """Replay and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--searches", type=int, default=100)
    parser.add_argument("--own", type=int, default=4, help="seeds of the search")
    parser.add_argument("--recipe", default="quickstart")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table = json.loads(arguments.table.read_text("utf-8"))
    recipe = load_recipe(arguments.recipe, [f"train.epochs={table['epochs']}"])
    grid = Grid.of(table)
    deals = deal(len(table["seeds"]), arguments.own, arguments.searches)
    result = {
        "kind": "search",
        **{key: value for key, value in table.items() if key not in ("kind", seals.KEY)},
        "replay": f"python -m tests.benchmarks.bench_search {' '.join(sys.argv[1:])}",
        "searches": arguments.searches,
        "own_seeds": arguments.own,
        "noise": describe_noise(grid, deals),
        "ways": measure_ways(grid, recipe, deals),
    }
    text = re.sub(r"\[\s+([-+\d.e,\s]+?)\s+\]", _in_a_line, json.dumps(result, indent=1))
    arguments.json.write_text(text + "\n", encoding="utf-8")


def _in_a_line(found: re.Match[str]) -> str:
    return f"[{' '.join(found[1].split())}]"


if __name__ == "__main__":
    main()
