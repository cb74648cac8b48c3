"""What trials are judged by: validation delta_m, or the loss, against single-task models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from optuna.study import Study

from recon_search.recipe import Recipe
from recon_search.tasks.scoring import Average, delta_m, loss_gain, measured
from recon_search.tasks.task import Directions, Metrics

Name = Literal["delta_m", "loss"]

_KEY = "measure"
"""Attribute of a study whose trials are judged by something else than delta_m."""


@dataclass(frozen=True)
class Measure:
    """A number for a network, in percent: higher is better, 0 is as good as single-task models.

    Attributes:
        name: `delta_m`, or `loss` for the gain in it (see `tasks.scoring`).
        directions: by task, the metrics that delta_m is made of.
        average: that it is.
    """

    name: Name
    directions: Directions
    average: Average = "per-task"

    def __call__(self, metrics: Metrics, single: Metrics) -> float:
        """Judge a network by its validation metrics and those of the single-task models."""
        if self.name == "loss":
            return loss_gain(metrics, single)
        return delta_m(metrics, single, measured(self.directions, [single]), self.average)


def measure_name(recipe: Recipe) -> Name:
    """What the recipe's search is judged by; fronts weigh delta_m against a cost."""
    return "loss" if recipe.search.objective == "loss" else "delta_m"


def note_measure(study: Study, name: Name) -> None:
    """Let a study say what its trials are judged by, for those who have no recipe."""
    if name != "delta_m" and measure_of(study) != name:
        study.set_user_attr(_KEY, name)


def measure_of(study: Study) -> Name:
    """What a study's trials are judged by."""
    found: Any = study.user_attrs.get(_KEY)
    return found if found in get_args(Name) else "delta_m"
