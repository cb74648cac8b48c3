"""What a comparison has found: rows with roles, paired differences, a verdict, the best model."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from scipy.stats import ttest_rel

from recon_search import artefact
from recon_search.errors import ArtefactError, TrainingError, in_one_line
from recon_search.records import STRICT, fit
from recon_search.runs.result import Result
from recon_search.tasks.scoring import delta_m, mean_and_deviation, measured
from recon_search.tasks.task import Directions, Metrics

FORMAT = "recon-search/comparison/3"
UNSEALED = "recon-search/comparison/2"
"""Without a digest."""
FIRST_FORMAT = "recon-search/comparison/1"
SIGNIFICANCE = 0.05

Role = Literal["joint", "split", "rule", "control"]
JudgedPart = Literal["validation", "test"]
Values = dict[str, dict[str, list[float]]]
"""By task and metric, one value a seed."""


@dataclass(frozen=True)
class Row:
    """One line of the comparison: a way of training, over all seeds.

    Attributes:
        name: what to call it.
        role: an unsplit network, the split one, a split by another rule, or a control.
        method: by which it was trained.
        metrics: on test data.
        delta_m: on test data, against the single-task models of the same seed, one value a seed.
        n_parameters: mean over seeds, heads included.
        flops: of one forward pass for all tasks, mean over seeds.
        conflicts: share of (step, layer, pair) triples with cos < S, mean over seeds; None if not
            measured.
        minus_split: mean and standard deviation over seeds of delta_m minus the split's; None for
            the split itself.
        p_value: of the paired t test against the split; None for it, for fewer than two seeds, and
            where all differences are equal.
    """

    __pydantic_config__ = STRICT

    name: str
    role: Role
    method: str
    metrics: Values
    delta_m: list[float]
    n_parameters: float
    flops: float
    conflicts: float | None
    minus_split: tuple[float, float] | None
    p_value: float | None

    @property
    def outcome(self) -> Literal["beaten", "better", "level"]:
        """Whether the split beats it, loses to it, or cannot be told from it."""
        if self.minus_split is None or self.p_value is None or self.minus_split[0] == 0:
            return "level"
        if not (self.p_value < SIGNIFICANCE and math.isfinite(self.minus_split[0])):
            return "level"
        return "beaten" if self.minus_split[0] < 0 else "better"


@dataclass(frozen=True)
class Best:
    """The model to export: the split network with the highest *validation* delta_m.

    Attributes:
        name: of its row.
        seed: of its training.
        validation_delta_m: what it was chosen by.
        directory: of its training.
    """

    __pydantic_config__ = STRICT

    name: str
    seed: int
    validation_delta_m: float
    directory: str


@dataclass(frozen=True)
class Comparison:
    """The content of `comparison.json`.

    Attributes:
        seeds: over which every row was trained.
        threshold: S, of the conflicts.
        directions: by task, the metrics that delta_m is made of.
        single: test metrics of the single-task models.
        single_parameters: of all of them together.
        rows: the unsplit network trained by the first method comes first.
        verdict: whether the split helped, in words.
        best: the model to export.
        warning: why the single-task models may be no yardstick; empty if nothing speaks against.
        units: by task and metric. Before they were kept, tasks were judged by accuracy alone.
    """

    __pydantic_config__ = STRICT

    seeds: list[int]
    threshold: float
    directions: dict[str, dict[str, int]]
    single: Values
    single_parameters: int
    rows: list[Row]
    verdict: str
    best: Best
    warning: str = ""
    units: dict[str, dict[str, str]] = field(default_factory=dict)

    def unit(self, task: str, metric: str) -> str:
        """Return the unit of a metric, empty where it has none."""
        return self.units.get(task, {"accuracy": "%"}).get(metric, "")

    def save(self, path: Path) -> None:
        """Write JSON."""
        artefact.write_json(path, {"format": FORMAT, **asdict(self)})

    @classmethod
    def load(cls, path: Path) -> Comparison:
        """Read what `save` wrote, or what the first version did.

        Raises:
            ArtefactError: the file is missing, damaged or of another format.
        """
        earlier = UNSEALED, FIRST_FORMAT
        values = artefact.read_object(path, "comparison", FORMAT, *earlier, finite=False)
        if values.pop("format") == FIRST_FORMAT:
            try:
                values = _from_first(values)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise ArtefactError(
                    f"A comparison must hold rows, single-task models and a verdict, {path} does "
                    f"not ({in_one_line(error)}). Compare again."
                ) from None
        found = fit(cls, values, path, "A comparison", "Compare again.")
        n = len(found.seeds)
        lists = [("single", each) for own in found.single.values() for each in own.values()]
        for row in found.rows:
            lists.append((f"row '{row.name}'", row.delta_m))
            lists += [
                (f"row '{row.name}'", v) for own in row.metrics.values() for v in own.values()
            ]
        for where, values_of in lists:
            if len(values_of) != n:
                raise ArtefactError(
                    f"A comparison must hold a value for each of its {n} seeds, {path} has "
                    f"{len(values_of)} in {where}. Compare again."
                )
        return found


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
) -> list[Row]:
    """Judge every line by its test metrics, paired by seed, against the first of role `split`.

    Args:
        trained: in the order of the table.
        single: the single-task models by task, one a seed.
        directions: by task, the metrics that delta_m is made of.
    """
    judged_by = judged_on("test", single, directions)
    deltas = [
        [
            delta_m(_test(result), _single(single, seed, "test"), judged_by)
            for seed, result in enumerate(line.results)
        ]
        for line in trained
    ]
    ours = next(place for place, line in enumerate(trained) if line.role == "split")
    rows = []
    for place, (line, values) in enumerate(zip(trained, deltas, strict=True)):
        differences = [a - b for a, b in zip(values, deltas[ours], strict=True)]
        rows.append(
            Row(
                name=line.name,
                role=line.role,
                method=line.results[0].method,
                metrics=collect(line.results, directions),
                delta_m=values,
                n_parameters=statistics.fmean(result.n_parameters for result in line.results),
                flops=statistics.fmean(result.flops for result in line.results),
                conflicts=line.conflicts,
                minus_split=None if place == ours else mean_and_deviation(differences),
                p_value=None if place == ours else paired_p_value(values, deltas[ours]),
            )
        )
    return rows


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
            delta_m(result.validation, _single(single, seed, "validation"), judged_by),
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


def paired_p_value(values: Sequence[float], reference: Sequence[float]) -> float | None:
    """Two-sided p value of the paired t test; None where it is not defined.

    That is for fewer than two pairs, and where all differences are equal.
    """
    differences = [a - b for a, b in zip(values, reference, strict=True)]
    if len(values) < 2 or not all(map(math.isfinite, differences)):
        return None
    largest = max(map(abs, [*values, *reference]))
    if max(differences) - min(differences) <= 1e-12 * largest:  # equal up to rounding
        return None
    return float(ttest_rel(values, reference).pvalue)


def verdict(rows: Sequence[Row]) -> str:
    """Say in words whether the split beats joint training and each control."""
    split = next(row for row in rows if row.role == "split")
    others = [row for row in rows if row.role != "split"]
    if all(row.outcome == "beaten" for row in others):
        head = "Success: the split beats everything it was compared with."
    else:
        head = "Not a success by this tool's standard: a split must beat all it is compared with."
    sentences = [head]
    against = {"joint": "joint training", "rule": "splits by rule", "control": "controls"}
    for role, what in against.items():
        said = {
            "beats": [row for row in others if row.role == role and row.outcome == "beaten"],
            "cannot be told from": [
                row for row in others if row.role == role and row.outcome == "level"
            ],
            "loses to": [row for row in others if row.role == role and row.outcome == "better"],
        }
        parts = [f"{verb} {_list(found)}" for verb, found in said.items() if found]
        if parts:
            sentences.append(f'Against {what}: "{split.name}" {"; ".join(parts)}.')
    return " ".join(sentences)


def _list(rows: Sequence[Row]) -> str:
    *most, last = (f'"{row.name}"' for row in rows)
    return f"{', '.join(most)} and {last}" if most else last


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


def _from_first(values: dict[str, Any]) -> dict[str, Any]:
    """Bring a first comparison.json, which knew accuracy alone, to the present form."""
    accuracy = {task: {"accuracy": list(of)} for task, of in values["single"].items()}
    rows = []
    for row in values["rows"]:
        metrics = {task: {"accuracy": of} for task, of in row.pop("accuracy").items()}
        method = row["name"].split(",")[0] if row["role"] in ("joint", "split") else ""
        rows.append({**row, "method": method, "metrics": metrics})
    best = {**values["best"], "name": values["best"]["label"]}
    del best["label"]
    directions = {task: {"accuracy": 1} for task in accuracy}
    return {**values, "single": accuracy, "rows": rows, "best": best, "directions": directions}
