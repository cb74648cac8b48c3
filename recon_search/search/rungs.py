"""A trial over several seeds, one after the other, for as long as it is worth the next."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from optuna.trial import BaseTrial, FrozenTrial, TrialState

BY_SEED = "by_seed"
"""Attribute of a trial: the value of each seed, in order, where a study trains several."""


def climb(
    trial: BaseTrial,
    n_seeds: int,
    value_of: Callable[[int], float],
    *,
    is_paired: bool = False,
    prunes: bool = True,
    known: Mapping[int, float] | None = None,
) -> tuple[list[float], bool]:
    """Train seed after seed until the study's pruner ends the trial, or there are enough.

    After every seed the trial reports how it stands, at the step that counts its seeds. So all
    trials meet at the same seeds, and what luck a seed has they share.

    Args:
        trial: the trial.
        n_seeds: the most seeds that it is trained over.
        value_of: trains seed number 0, 1, ... and returns what it is worth.
        is_paired: report each seed's own value, for a pruner that pairs them, not their mean.
        prunes: whether the pruner is asked; it cannot be of several objectives.
        known: what the trial had reported before it was paused.

    Returns:
        The values of the seeds that were trained, and whether the pruner ended the trial.
    """
    known = known or {}
    last, values = max(known, default=0), []
    for step in range(1, n_seeds + 1):
        values.append(value_of(step - 1))
        trial.set_user_attr(BY_SEED, values)
        if not prunes:
            continue
        if step not in known:
            tell(trial, values, is_paired=is_paired)
        # Whether earlier ones were worth the next was asked before the trial was paused.
        if last <= step < n_seeds and trial.should_prune():
            return values, True
    return values, False


def tell(trial: BaseTrial, values: Sequence[float], *, is_paired: bool) -> None:
    """Report how a trial stands after the last of these seeds."""
    trial.report(values[-1] if is_paired else statistics.fmean(values), len(values))


def seeds_of(attributes: Mapping[str, object]) -> list[float]:
    """The values by seed that a trial's attributes hold; none where a study trains one seed."""
    found = attributes.get(BY_SEED)
    if not isinstance(found, list):
        return []
    return [float(value) for value in found if isinstance(value, int | float)]


def last_value(trial: FrozenTrial) -> float | None:
    """The first objective's value at the end, or as far as the trial came; None before that."""
    if trial.state == TrialState.COMPLETE:
        return float(trial.values[0])
    if values := seeds_of(trial.user_attrs):
        return statistics.fmean(values)
    steps = trial.intermediate_values
    return float(steps[max(steps)]) if steps else None
