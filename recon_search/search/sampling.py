"""Which trial comes next, and which one ends early."""

from __future__ import annotations

import warnings

import optuna
from optuna.exceptions import ExperimentalWarning

from recon_search.recipe import Recipe


def make_sampler(recipe: Recipe, n_begun: int, worker: int = 0) -> optuna.samplers.BaseSampler:
    """A sampler for the next trial alone: a search that is resumed goes on as it would have.

    Args:
        recipe: the recipe.
        n_begun: trials that were begun before; those that wait would leave the seed as it was.
        worker: tells the workers of a machine apart.
    """
    seed = recipe.search.seed + 1000 * n_begun + worker
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # `constant_liar`, before Optuna 5
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


P_VALUE = 0.3
"""Below which a signed-rank test ends a trial; two seeds that are both worse give 0.25."""


def make_pruner(recipe: Recipe) -> optuna.pruners.BasePruner:
    """The pruner that the recipe's `[search]` names; with a patience, it waits that long.

    Where trials have several seeds, it looks at them after each seed (see `rungs`): halving ends
    the worse half after 1, 2, 4 ... seeds, by their means so far; `wilcoxon` ends what a
    signed-rank test, paired by seed, finds worse than the best complete trial (Optuna's
    `WilcoxonPruner`). Else it looks at them after an epoch.

    Halving ends the worse half of the trials after half of the epochs. It does not look earlier:
    after one epoch of six the order of splits says half as much of their order over other seeds as
    in the end, after three of six it says as much (`tests/benchmarks/bench_search.py`). Without a
    pruner, the patience alone ends a trial.
    """
    if recipe.search.seeds > 1:
        return _make_pruner_of_seeds(recipe.search.pruner)
    pruner: optuna.pruners.BasePruner | None = None
    if recipe.search.pruner == "halving":
        half = -(-recipe.train.epochs // 2)
        pruner = optuna.pruners.SuccessiveHalvingPruner(half, reduction_factor=2)
    elif recipe.search.pruner == "hyperband":
        pruner = optuna.pruners.HyperbandPruner(1, recipe.train.epochs, reduction_factor=3)
    if recipe.search.patience:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return optuna.pruners.PatientPruner(pruner, recipe.search.patience)
    return pruner or optuna.pruners.NopPruner()


def is_paired(recipe: Recipe) -> bool:
    """Whether the pruner pairs trials by seed, and wants to know each seed's own value."""
    return recipe.search.pruner == "wilcoxon"


def _make_pruner_of_seeds(name: str) -> optuna.pruners.BasePruner:
    if name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(1, reduction_factor=2)
    if name == "wilcoxon":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return optuna.pruners.WilcoxonPruner(p_threshold=P_VALUE)
    return optuna.pruners.NopPruner()
