"""What a comparison has found: rows with roles, paired differences, a price, the best model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from recon_search import artefact
from recon_search.errors import ArtefactError, in_one_line
from recon_search.records import STRICT, fit
from recon_search.runs.paired import Difference, adjust, paired
from recon_search.tasks.scoring import Average

FORMAT = "recon-search/comparison/3"
SECOND_FORMAT = "recon-search/comparison/2"
"""Without a digest, and without intervals."""
FIRST_FORMAT = "recon-search/comparison/1"

Role = Literal["joint", "split", "borrowed", "during", "rule", "control", "separate"]
Values = dict[str, dict[str, list[float]]]
"""By task and metric, one value a seed."""


@dataclass(frozen=True)
class Price:
    """What a network costs, and what it gives for that.

    A mixture of joint training and separate networks, some of one and some of the other, could be
    had for any cost between theirs: its delta_m lies on the straight line between the two. What
    stands above that line is worth its price, what stands below is not.

    Attributes:
        ratio: cost in multiples of the first joint network's.
        above: delta_m minus that of the line at the same cost, paired by seed, in points; None
            where separate networks cost no more than the joint one, or are not there.
    """

    __pydantic_config__ = STRICT

    ratio: float
    above: Difference | None = None


@dataclass(frozen=True)
class Row:
    """One line of the comparison: a way of training, over all seeds.

    Attributes:
        name: what to call it.
        role: an unsplit network, the split one, one split as was found elsewhere, one split while
            it trained, a split by another rule, a control, or a network of its own for every task.
        method: by which it was trained.
        metrics: on test data.
        delta_m: on test data, against the single-task models of the same seed, one value a seed.
        n_parameters: mean over seeds, heads included.
        flops: of one forward pass for all tasks, mean over seeds.
        conflicts: share of (step, layer, pair) triples with cos < S, mean over seeds; None if not
            measured.
        minus_split: delta_m minus the split's, p values corrected over the rows of its role; None
            for the split itself.
        loss: mean over tasks of the test loss relative to that of the single-task model, in
            percent, one value a seed: less noisy than metrics that count. Positive is better, as of
            delta_m.
        prices: by "FLOPs" and "parameters".
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
    minus_split: Difference | None
    loss: list[float] = field(default_factory=list)
    prices: dict[str, Price] = field(default_factory=dict)

    @property
    def outcome(self) -> Literal["beaten", "better", "level"]:
        """Whether the split beats it, loses to it, or neither."""
        if self.minus_split is None or not self.minus_split.is_significant:
            return "level"
        return "beaten" if self.minus_split.mean < 0 else "better"

    def repeats(self, other: Row) -> bool:
        """Whether it is of the same trainings, as of two rules that choose the same layers."""
        ours, theirs = ((each.metrics, each.delta_m, each.n_parameters) for each in (self, other))
        return ours == theirs


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
        rows: the unsplit network trained by the first method comes first, separate networks last.
        verdict: whether the split helped, in words.
        best: the model to export.
        warning: why the single-task models may be no yardstick; empty if nothing speaks against.
        units: by task and metric. Before they were kept, tasks were judged by accuracy alone.
        average: that delta_m is.
        single_flops: of one forward pass of each single-task model, added up; None where it was not
            kept yet.
        trainings: by name of a row, and of "single TASK", the folders of its trainings, below that
            of the run; empty where they were not kept yet.
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
    average: Average = "per-task"
    single_flops: float | None = None
    trainings: dict[str, list[str]] = field(default_factory=dict)

    def unit(self, task: str, metric: str) -> str:
        """Return the unit of a metric, empty where it has none."""
        return self.units.get(task, {"accuracy": "%"}).get(metric, "")

    def save(self, path: Path) -> None:
        """Write JSON."""
        artefact.write_json(path, {"format": FORMAT, **asdict(self)})

    @classmethod
    def load(cls, path: Path) -> Comparison:
        """Read what `save` wrote, or what earlier versions did.

        Raises:
            ArtefactError: the file is missing, damaged or of another format.
        """
        earlier = SECOND_FORMAT, FIRST_FORMAT
        values = artefact.read_object(path, "comparison", FORMAT, *earlier, finite=False)
        version = values.pop("format")
        if version != FORMAT:
            try:
                values = _from_second(_from_first(values) if version == FIRST_FORMAT else values)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise ArtefactError(
                    f"A comparison must hold rows, single-task models and a verdict, {path} does "
                    f"not ({in_one_line(error)}). Compare again."
                ) from None
        found = fit(cls, values, path, "A comparison", "Compare again.")
        n = len(found.seeds)
        lists = [("single", each) for own in found.single.values() for each in own.values()]
        for row in found.rows:
            every = [row.delta_m, *([row.loss] if row.loss else [])]
            every += [each for own in row.metrics.values() for each in own.values()]
            lists += [(f"row '{row.name}'", each) for each in every]
        for where, each in lists:
            if len(each) != n:
                raise ArtefactError(
                    f"A comparison must hold a value for each of its {n} seeds, {path} has "
                    f"{len(each)} in {where}. Compare again."
                )
        return found


def by_rule(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of each rule that was compared at several sizes or budgets, as they come."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.role == "rule":  # its name is "rule NAME, SIZE"
            rule = row.name.removeprefix("rule ").partition(",")[0]
            found.setdefault(rule, []).append(row)
    return {rule: own for rule, own in found.items() if len(own) > 1}


def compared(rows: Sequence[Row]) -> list[Row]:
    """Take the differences to the split.

    The rows of a role are a family of comparisons, in which one that others repeat counts once.
    """
    ours = next((place for place, row in enumerate(rows) if row.role == "split"), None)
    if ours is None:
        return list(rows)
    found: list[Difference | None] = [
        None if place == ours else paired(row.delta_m, rows[ours].delta_m)
        for place, row in enumerate(rows)
    ]
    for role in get_args(Role):
        family = [place for place, row in enumerate(rows) if row.role == role]
        first = {
            place: next(each for each in family if rows[place].repeats(rows[each]))
            for place in family
        }
        distinct = sorted(set(first.values()))
        own = dict(zip(distinct, adjust([found[place] for place in distinct]), strict=True))
        for place in family:
            found[place] = own[first[place]]
    return [replace(row, minus_split=own) for row, own in zip(rows, found, strict=True)]


def priced(rows: Sequence[Row]) -> list[Row]:
    """Hold every row's delta_m against the line from joint training to separate networks."""
    joint = next((row for row in rows if row.role == "joint"), rows[0])
    apart = next((row for row in rows if row.role == "separate"), None)

    def price(row: Row, cost: str) -> Price:
        first, own = getattr(joint, cost), getattr(row, cost)
        span = 0.0 if apart is None else getattr(apart, cost) - first
        if span <= 0:
            return Price(own / first)
        assert apart is not None
        share = (own - first) / span
        line = [
            (1 - share) * low + share * high
            for low, high in zip(joint.delta_m, apart.delta_m, strict=True)
        ]
        return Price(own / first, paired(row.delta_m, line))

    costs = {"FLOPs": "flops", "parameters": "n_parameters"}
    return [
        replace(row, prices={name: price(row, cost) for name, cost in costs.items()})
        for row in rows
    ]


def _from_second(values: dict[str, Any]) -> dict[str, Any]:
    """Bring a comparison without intervals to the present form: differences are taken anew."""
    rows = [
        Row(**{key: value for key, value in row.items() if key != "p_value"})
        for row in values["rows"]
    ]
    rows = priced(compared([replace(row, minus_split=None) for row in rows]))
    return {**values, "rows": [asdict(row) for row in rows]}


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
