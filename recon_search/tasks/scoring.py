"""How networks are judged across tasks: delta_m, and its spread over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from recon_search.tasks.task import Directions, Metrics

Average = Literal["per-task", "flat"]


def delta_m(
    metrics: Metrics, single: Metrics, directions: Directions, average: Average = "per-task"
) -> float:
    """Mean relative difference to single-task models, in percent; higher is better.

    The mean over tasks of the mean over a task's metrics of the signed relative difference
    (Recon, arXiv 2302.11289, section 4.1). The flat mean over all metrics, whatever their task, is
    that of CAGrad, Nash-MTL and FAMO, who report it as a drop, with the other sign. On tasks of
    unequal numbers of metrics the two can differ in sign.
    It does not change with the unit of a metric, but with its origin: an error rate of 2 % instead
    of 4 % is 50 % better, the accuracy of 98 % instead of 96 % is 2 %. So a metric that may be near
    or below zero (r2) makes it large without meaning, and one that is nan makes it nan.

    Args:
        metrics: of the model in question.
        single: of the single-task models, same tasks and metrics. A baseline of exactly zero has
            no relative difference; it counts as the smallest positive number.
        directions: the tasks that enter, and of each the metrics that do.
        average: the mean over tasks, or the flat one.

    Examples:
        >>> single = {"seg": {"miou": 0.50}, "depth": {"abs-error": 0.40}}
        >>> joint = {"seg": {"miou": 0.45}, "depth": {"abs-error": 0.42}}
        >>> round(delta_m(joint, single, {"seg": {"miou": 1}, "depth": {"abs-error": -1}}), 2)
        -7.5
    """
    tasks = [_relative(metrics[task], single[task], own) for task, own in directions.items()]
    if average == "flat":
        every = [difference for own in tasks for difference in own]
        return 100 * sum(every) / len(every)
    return 100 * sum(sum(own) / len(own) for own in tasks) / len(tasks)


def loss_gain(metrics: Metrics, single: Metrics) -> float:
    """Mean over tasks by how many percent the loss is below the single-task model's.

    Higher is better, 0 is as good as single-task models. Every sample counts in it by as much as it
    is wrong, so it scatters less over seeds than metrics that count right and wrong.

    Args:
        metrics: of the model in question, with the `loss` of each task.
        single: of the single-task models. A task of which the data have no label, whose loss is no
            number, is left out; nan if nothing is left.
    """
    ratios = [
        metrics[task]["loss"] / max(abs(own["loss"]), 1e-12)
        for task, own in single.items()
        if not math.isnan(own["loss"])
    ]
    return 100 * (1 - statistics.fmean(ratios)) if ratios else math.nan


def measured(directions: Directions, baselines: Iterable[Metrics]) -> Directions:
    """Return what delta_m can be made of: the metrics that are a number for a baseline at least.

    Data may have no number for a metric: AUROC where a class is absent, anything where a task has
    no label. Then no network has one, and delta_m is of the other metrics. A metric that some
    networks alone have no number for remains, and makes their delta_m nan.

    Args:
        directions: the tasks that enter, and of each the metrics that do.
        baselines: metrics of single-task models, all on the same data.

    Returns:
        Directions; those that were given if nothing is left.
    """
    known = list(baselines)
    found = {
        task: {
            name: direction
            for name, direction in own.items()
            if not all(math.isnan(metrics[task][name]) for metrics in known)
        }
        for task, own in directions.items()
    }
    return {task: own for task, own in found.items() if own} or directions


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation over seeds; the latter is 0 for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _relative(
    values: Mapping[str, float], baseline: Mapping[str, float], directions: Mapping[str, int]
) -> list[float]:
    return [
        direction * (values[name] - baseline[name]) / max(abs(baseline[name]), 1e-12)
        for name, direction in directions.items()
    ]
