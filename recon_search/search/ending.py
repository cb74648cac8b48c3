"""When a search may end before it has all its trials: nothing better is likely."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.study import Study, StudyDirection
from optuna.terminator import RegretBoundEvaluator
from optuna.trial import FrozenTrial, TrialState

LEAST = 20
"""Completed trials below which nothing is said: the bound needs so many to mean something."""

_KEY = "ended"
"""Attribute of the study, by which its workers agree."""


@dataclass(frozen=True)
class Ending:
    """Why a search has ended.

    Attributes:
        trials: that were complete.
        gain: points of the objective that another split is likely not to be better by.
    """

    trials: int
    gain: float

    def __str__(self) -> str:
        return (
            f"after {self.trials} complete trials no split is likely to be better than the best "
            f"by more than {self.gain:.2f} points"
        )


def likely_gain(trials: Sequence[FrozenTrial]) -> float | None:
    """Bound what a further trial is likely to gain, in points of the objective.

    Optuna's terminator takes this regret bound (Makarova et al. 2022, AutoML-Conf): a Gaussian
    process is fitted to the better half of the trials over the keys that all have drawn, and the
    lowest that the best may truly be is held against the highest that any split may be. It falls
    with the number of trials, and the less so the noisier that is.

    Returns:
        The bound; None where fewer than `LEAST` trials are complete, or where nothing is drawn in
        all of them.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if len([trial for trial in complete if "same_as" not in trial.user_attrs]) < LEAST:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        evaluator = RegretBoundEvaluator(min_n_trials=LEAST, seed=0)
    try:
        return float(evaluator.evaluate(complete, StudyDirection.MAXIMIZE))
    except ValueError:
        return None


def end(study: Study, ending: Ending) -> None:
    """Let no worker of a study begin another trial."""
    study.set_user_attr(_KEY, {"trials": ending.trials, "gain": ending.gain})


def ending_of(study: Study) -> Ending | None:
    """Why a study was ended; None where it was not."""
    found: Any = study.user_attrs.get(_KEY)
    try:
        return None if found is None else Ending(int(found["trials"]), float(found["gain"]))
    except (KeyError, TypeError, ValueError):
        return None  # of somebody else's study
