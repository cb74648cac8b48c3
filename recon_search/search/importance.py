"""Which searched keys matter."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import optuna
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

LEAST = 4
"""Completed trials below which nothing is said."""


def importances(study: Study) -> dict[str, float]:
    """Share of the objective's variance that each key explains, by Optuna's fANOVA, largest first.

    Of keys that were drawn in every trial; {} where fewer than four trials are complete, where all
    gave the same, or where no such key varied.
    """
    complete = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if "same_as" not in trial.user_attrs
    ]
    if len(complete) < LEAST or len({trial.values[0] for trial in complete}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return dict(
                optuna.importance.get_param_importances(
                    study,
                    evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
                    target=lambda trial: trial.values[0],
                )
            )
        except (ValueError, RuntimeError):
            return {}  # no key was drawn in every trial, or none varied


def importances_of(
    trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]
) -> dict[str, float]:
    """As `importances`, of trials that are at hand."""
    study = optuna.create_study(directions=list(directions))
    study.add_trials([trial for trial in trials if trial.state == TrialState.COMPLETE])
    return importances(study)
