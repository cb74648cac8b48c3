"""Can the single-task models be divided by? Every delta_m is relative to them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from recon_search.errors import RecipeError, nearest
from recon_search.runs.result import Result
from recon_search.runs.run import Run
from recon_search.tasks.task import Task

SCATTER = 0.05
"""Standard deviation over seeds, relative to the mean, above which a baseline is no yardstick."""

PROGRESS = 0.05
"""Relative change of a metric over the last fifth of training above which it has not ended."""


def judged_tasks(run: Run) -> tuple[Task, ...]:
    """Return the tasks that have a single-task model, and of which delta_m is made.

    Raises:
        RecipeError: `compare.single` names a task that the data does not have.
    """
    names, wanted = run.schema.names, run.recipe.compare.single
    for name in wanted:
        if name not in names:
            raise RecipeError(
                f"`compare.single` must name tasks ({', '.join(names)}), got '{name}'."
                f"{nearest(name, names)}"
            )
    return tuple(task for task in run.schema.tasks if not wanted or task.name in wanted)


def doubts(
    single: Mapping[str, Sequence[Result]], directions: Mapping[str, Mapping[str, int]]
) -> list[str]:
    """Say which baselines scatter over seeds, or were still getting better when they ended.

    Scatter is looked at on validation data, like progress: test data is for the table alone.

    Args:
        single: the single-task models by task, one a seed.
        directions: by task, the metrics that delta_m is made of.
    """
    found = []
    for task, results in single.items():
        scattered, unfinished = [], []
        for name, direction in directions[task].items():
            values = [result.validation[task][name] for result in results]
            scatter = _relative(statistics.stdev(values), values) if len(values) > 1 else 0.0
            if scatter > SCATTER:
                spread = f"{statistics.fmean(values):.4g} ± {statistics.stdev(values):.2g}"
                scattered.append(f"{name} {spread}")
            gained = [_progress(result, task, name) * direction for result in results]
            if statistics.fmean(gained) > PROGRESS:
                unfinished.append(f"{name} by {statistics.fmean(gained):.0%}")
        those = f"the single-task models of '{task}'"
        if scattered:
            found.append(f"{those} scatter over seeds ({', '.join(scattered)})")
        if unfinished:
            those = "they" if scattered else those
            better = "were still getting better in the last fifth of training"
            found.append(f"{those} {better} ({', '.join(unfinished)})")
    return found


def describe_doubts(found: Sequence[str]) -> str:
    """One warning for all doubts; empty where there are none."""
    if not found:
        return ""
    return (
        f"Warning: {'; '.join(found)}. Every delta_m divides by these models: train longer, or "
        "with another train.lr, before you believe one."
    )


def _progress(result: Result, task: str, name: str) -> float:
    """Relative change of a validation metric over the last fifth of the epochs."""
    values = [record["validation"][task][name] for record in result.history()]
    if len(values) < 2:
        return 0.0
    before: float = values[min(math.ceil(0.8 * len(values)) - 1, len(values) - 2)]
    change: float = (values[-1] - before) / max(abs(before), 1e-12)
    return change


def _relative(value: float, to: Sequence[float]) -> float:
    return value / max(abs(statistics.fmean(to)), 1e-12)
