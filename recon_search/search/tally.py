"""Where a study stands: which trials count, and how many are in what state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState

STREAK = 30
"""So many deduplicated trials in a row mean that the space holds nothing new."""


STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
    TrialState.FAIL: "failed",
}
"""What states are called."""


@dataclass(frozen=True)
class Tally:
    """Numbers of trials.

    Attributes:
        complete: trained to the end.
        pruned: stopped early.
        running: under way.
        waiting: queued.
        failed: their training could not go on, or their worker died too often.
        deduplicated: gave a split that another trial trains or has trained.
        retried: given up because their worker died; another trial has their values.
        is_exhausted: nothing new was found for a while.
    """

    complete: int = 0
    pruned: int = 0
    running: int = 0
    waiting: int = 0
    failed: int = 0
    deduplicated: int = 0
    retried: int = 0
    is_exhausted: bool = False

    @property
    def spent(self) -> int:
        """Trials that count towards `search.trials` and are over."""
        return self.complete + self.pruned + self.failed


def tally(trials: Sequence[FrozenTrial]) -> Tally:
    """Count the trials of a study."""
    retried = {trial.user_attrs.get("retry_of") for trial in trials}
    counts = dict.fromkeys(Tally.__dataclass_fields__, 0)
    streak = 0
    for trial in trials:
        kind = _kind(trial, retried)
        if kind is None:
            continue
        counts[kind] += 1
        if kind == "deduplicated":
            streak += 1
        elif kind not in ("running", "waiting", "retried"):
            streak = 0
    counts.pop("is_exhausted")
    return Tally(**counts, is_exhausted=streak >= STREAK)


def is_surplus(number: int, trials: Sequence[FrozenTrial], limit: int) -> bool:
    """Whether enough trials count without the one of this number.

    Those that were begun before it count; a trial that was retried stands in the place of the dead
    one.
    """
    retried = {other.user_attrs.get("retry_of") for other in trials}
    place = _place(number, trials)
    before = [other for other in trials if _place(other.number, trials) < place]
    counted = ("complete", "pruned", "failed", "running", "waiting")
    return sum(_kind(other, retried) in counted for other in before) >= limit


def has_waiting_retry(trials: Sequence[FrozenTrial]) -> bool:
    """Whether a dead trial's values wait for a worker."""
    return any(t.state == TrialState.WAITING and "retry_of" in t.user_attrs for t in trials)


def seconds(trial: FrozenTrial) -> float:
    """Time a trial took, or has taken so far."""
    if trial.datetime_start is None:
        return 0.0
    end = trial.datetime_complete or datetime.now()
    return (end - trial.datetime_start).total_seconds()


def _place(number: int, trials: Sequence[FrozenTrial]) -> tuple[int, int]:
    """The first trial that this one is a retry of, and its own number."""
    first = number
    while "retry_of" in trials[first].user_attrs:
        first = trials[first].user_attrs["retry_of"]
    return first, number


def _kind(trial: FrozenTrial, retried: set[int | None]) -> str | None:
    """The counter of `Tally` that a trial belongs to; None for one that was one too many."""
    if "surplus" in trial.user_attrs:
        return None
    if "same_as" in trial.user_attrs:
        return "deduplicated"
    if trial.state == TrialState.FAIL and trial.number in retried:
        return "retried"
    return STATES[trial.state]
