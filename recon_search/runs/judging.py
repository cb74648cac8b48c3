"""From results to rows: every line judged on test data, the model to export on validation data."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from recon_search.errors import TrainingError
from recon_search.runs.comparison import Best, Role, Row, Values, compared, priced
from recon_search.runs.result import Result
from recon_search.tasks.scoring import Average, delta_m, loss_gain, measured
from recon_search.tasks.task import Directions, Metrics

SEPARATE = "separate networks"

JudgedPart = Literal["validation", "test"]


@dataclass(frozen=True)
class Trained:
    """One line before it is judged: results of one way of training, one a seed.

    Attributes:
        name: what to call it.
        role: see `Row`.
        results: in the order of the seeds.
        conflicts: as `Row` has them.
    """

    name: str
    role: Role
    results: Sequence[Result]
    conflicts: float | None = None


def make_rows(
    trained: Sequence[Trained],
    single: Mapping[str, Sequence[Result]],
    directions: Mapping[str, Mapping[str, int]],
    average: Average = "per-task",
) -> list[Row]:
    """Judge every line by its test metrics, paired by seed, against the first of role `split`.

    The single-task models together are the last row, if every task of the networks has one.

    Args:
        trained: in the order of the table.
        single: the single-task models by task, one a seed.
        directions: by task, the metrics that delta_m is made of.
        average: that it is.
    """
    judged_by = judged_on("test", single, directions)
    rows = []
    for line in trained:
        seeds = list(enumerate(line.results))
        rows.append(
            Row(
                name=line.name,
                role=line.role,
                method=line.results[0].method,
                metrics=collect(line.results, directions),
                delta_m=[
                    delta_m(_test(result), _single(single, seed, "test"), judged_by, average)
                    for seed, result in seeds
                ],
                n_parameters=statistics.fmean(result.n_parameters for result in line.results),
                flops=statistics.fmean(result.flops for result in line.results),
                conflicts=line.conflicts,
                minus_split=None,
                loss=[
                    loss_gain(_test(result), _single(single, seed, "test"))
                    for seed, result in seeds
                ],
            )
        )
    if set(trained[0].results[0].tasks) == set(single):
        rows.append(_separate(single))
    return priced(compared(rows))


def _separate(single: Mapping[str, Sequence[Result]]) -> Row:
    """The single-task models as what they are to a user: one network a task."""
    n_seeds = len(next(iter(single.values())))
    return Row(
        name=SEPARATE,
        role="separate",
        method="joint",
        metrics={task: collect(results, {task: ()})[task] for task, results in single.items()},
        delta_m=[0.0] * n_seeds,
        n_parameters=sum(statistics.fmean(r.n_parameters for r in of) for of in single.values()),
        flops=sum(statistics.fmean(r.flops for r in of) for of in single.values()),
        conflicts=None,
        minus_split=None,
        loss=[0.0] * n_seeds,
    )


def collect(results: Sequence[Result], tasks: Mapping[str, Any]) -> Values:
    """Gather test metrics by task and metric, one value a seed."""
    return {
        task: {name: [_test(r)[task][name] for r in results] for name in _test(results[0])[task]}
        for task in tasks
        if task in _test(results[0])
    }


def choose_best(
    trained: Sequence[Trained],
    single: Mapping[str, Sequence[Result]],
    directions: Mapping[str, Mapping[str, int]],
    average: Average = "per-task",
) -> Best:
    """Choose the model to export among the networks of role `split`, on validation data alone.

    Raises:
        TrainingError: delta_m is a number for none of them.
    """
    judged_by = judged_on("validation", single, directions)
    candidates = [
        Best(
            line.name,
            result.seed,
            delta_m(result.validation, _single(single, seed, "validation"), judged_by, average),
            str(result.directory),
        )
        for line in trained
        if line.role == "split"
        for seed, result in enumerate(line.results)
    ]
    known = [each for each in candidates if not math.isnan(each.validation_delta_m)]
    if not known:
        raise TrainingError(
            f"A model to export must have a validation delta_m, it is nan for all {len(candidates)}"
            " split networks. Look at the labels of the validation data."
        )
    return max(known, key=lambda candidate: candidate.validation_delta_m)


def best_on_validation(
    lines: Sequence[Sequence[Result]],
    single: Mapping[str, Sequence[Result]],
    directions: Mapping[str, Mapping[str, int]],
    average: Average = "per-task",
) -> int:
    """Return which line has the highest mean delta_m over its seeds on validation data.

    One whose delta_m is no number comes last; of equal ones the first is taken.
    """
    judged_by = judged_on("validation", single, directions)

    def value(results: Sequence[Result]) -> float:
        found = statistics.fmean(
            delta_m(result.validation, _single(single, seed, "validation"), judged_by, average)
            for seed, result in enumerate(results)
        )
        return -math.inf if math.isnan(found) else found

    return max(range(len(lines)), key=lambda place: value(lines[place]))


def judged_on(
    part: JudgedPart,
    single: Mapping[str, Sequence[Result]],
    directions: Mapping[str, Mapping[str, int]],
) -> Directions:
    """Return the metrics that delta_m is made of on a part: see `measured`."""
    n_seeds = len(next(iter(single.values())))
    return measured(directions, [_single(single, seed, part) for seed in range(n_seeds)])


def describe_unmeasured(
    single: Mapping[str, Sequence[Result]], directions: Mapping[str, Mapping[str, int]]
) -> str:
    """Name the metrics that data have no number for in one line; empty where there are none."""
    found = []
    for part in get_args(JudgedPart):
        known = judged_on(part, single, directions)
        lacking = [
            f"{name} of '{task}'"
            for task, own in directions.items()
            for name in own
            if name not in known.get(task, {})
        ]
        if lacking:
            found.append(f"on {part} data {', '.join(lacking)}")
    if not found:
        return ""
    return (
        f"Warning: delta_m leaves out what is no number: {'; '.join(found)}. Look for parts "
        "without a label, or with a single class or value, in `recon-search data`."
    )


def _test(result: Result) -> Metrics:
    assert result.test is not None
    return result.test


def _single(single: Mapping[str, Sequence[Result]], seed: int, part: JudgedPart) -> Metrics:
    """Metrics of the single-task models of one seed."""
    found = {}
    for task, results in single.items():
        result = results[seed]
        found[task] = (result.validation if part == "validation" else _test(result))[task]
    return found
