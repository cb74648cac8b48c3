"""What was found in data: counts, ranges, overlaps, doubles; and what is doubtful about it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recon_search.data.source import PARTS, PartName
from recon_search.tasks.binary import Binary
from recon_search.tasks.classes import Classes
from recon_search.tasks.labels import Labels
from recon_search.tasks.segments import Segments
from recon_search.tasks.task import Task, class_names
from recon_search.tasks.values import Values

NOISE, RELIABLE = 0.3, 0.4
"""Shares of samples that two tasks have in common: below the first, what their gradients conflict
was found to be indistinguishable from noise; above the second, reliable (arXiv 2604.07848, on
molecules)."""

BINS = 12
"""Bars of the histogram of a number."""

Counts = dict[PartName, int]


class Column:
    """Targets of one task over one part, and which samples they are of; of pixels what they hold.

    That is the number of pixels with a label, or of each class.
    """

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._targets: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._targets)

    def add(self, number: int, target: Tensor) -> None:
        """Take in the target of a sample."""
        self._numbers.append(number)
        self._targets.append(target)

    @cached_property
    def targets(self) -> Tensor:
        """All of them, (N, ...)."""
        return torch.stack(self._targets) if self._targets else torch.empty(0)

    def labelled(self, task: Task) -> frozenset[int]:
        """Return the numbers of the samples that have a label."""
        if not self._targets:
            return frozenset()
        if task.reads == "pyramid":
            return frozenset(itertools.compress(self._numbers, self.targets.sum(1).tolist()))
        try:
            n = torch.vmap(lambda target: task.n_labels(target[None]))(self.targets).tolist()
        except Exception:  # of a kind of one's own that counts in another way
            n = [int(task.n_labels(target[None])) for target in self._targets]
        return frozenset(itertools.compress(self._numbers, n))


@dataclass(frozen=True)
class Spread:
    """One number over one part: its range and a histogram from the least to the greatest."""

    least: float
    mean: float
    deviation: float
    greatest: float
    histogram: list[int]


@dataclass(frozen=True)
class TaskFacts:
    """What the labels of a task are.

    Attributes:
        name: of the task.
        kind: of the task.
        samples: that may have a label, by part: all, or the task's own.
        labelled: samples with a label, by part.
        classes: samples of each class, or with each label, or with a pixel of each class, by part;
            empty for other kinds.
        numbers: of each number its spread by part; empty for other kinds.
        unit: of the numbers.
    """

    name: str
    kind: str
    samples: Counts
    labelled: Counts
    classes: dict[str, Counts]
    numbers: list[dict[PartName, Spread]]
    unit: str = ""


@dataclass(frozen=True)
class Overlap:
    """Training samples that two tasks have in common.

    Attributes:
        first: a task.
        second: another.
        both: samples that have labels of both.
        either: samples that have a label of one at least.
    """

    first: str
    second: str
    both: int
    either: int

    @property
    def share(self) -> float:
        """Of the samples of either, those of both; 0 where there is none."""
        return self.both / self.either if self.either else 0.0


@dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes:
        samples: by part.
        shape: of an input as the network gets it, (C, H, W).
        tasks: in order.
        overlaps: of every pair of tasks.
        unreadable: what is wrong with samples that cannot be read, a line each.
        doubles: images that stand in two parts, by the names of both samples.
        repeated: images that stand in the training part more than once, counted without the first.
    """

    samples: Counts
    shape: tuple[int, int, int]
    tasks: list[TaskFacts]
    overlaps: list[Overlap]
    unreadable: list[str]
    doubles: list[tuple[str, str]]
    repeated: int


def advise(found: Examination) -> list[str]:
    """Say what is doubtful about data that can be trained on, a sentence each."""
    lines = []
    if found.doubles:
        n = len(found.doubles)
        lines.append(
            f"{n} image{'s' * (n > 1)} stand{'s' * (n == 1)} in two parts, so what is tested was "
            "trained on. Remove one of each, or cut by a group."
        )
    if found.repeated:
        n = found.repeated
        lines.append(
            f"{n} training image{'s' * (n > 1)} {'are' if n > 1 else 'is'} there more than once."
        )
    noise = [pair for pair in found.overlaps if pair.share < NOISE]
    doubtful = [pair for pair in found.overlaps if NOISE <= pair.share < RELIABLE]
    for pairs, limit, words in (
        (noise, NOISE, "was found to be noise below"),
        (doubtful, RELIABLE, "was found to be reliable only above"),
    ):
        if pairs:
            named = ", ".join(f"{pair.first}-{pair.second}" for pair in pairs[:3])
            more = f" and {len(pairs) - 3} more" if len(pairs) > 3 else ""
            lines.append(
                f"{named}{more}: conflict between tasks {words} {limit:.0%} of shared samples (on "
                f"molecules, arXiv 2604.07848). Doubt the ranking of layers{_remedy(pairs)}."
            )
    for task in found.tasks:
        lines += _unmeasured(task)
        trained = {name: own["train"] for name, own in task.classes.items()}
        if absent := [name for name, n in trained.items() if not n]:
            named = ", ".join(absent[:3]) + ", ..." * (len(absent) > 3)
            lines.append(f"{task.name}: no training sample of {named}.")
    return lines


def _remedy(pairs: Sequence[Overlap]) -> str:
    """What can be done about tasks that share few samples; of those that share none, nothing."""
    return ", and label more samples for both" if any(pair.both for pair in pairs) else ""


def _unmeasured(task: TaskFacts) -> Iterator[str]:
    """Name the parts in which some metric of a task will be no number."""
    for part in PARTS[1:]:
        if not task.labelled[part]:
            yield f"{task.name}: no label in the {part} part, so it has no metric there."
            continue
        if task.kind in ("classes", "binary"):
            seen = [name for name, own in task.classes.items() if own[part]]
            if len(seen) == 1:
                yield f"{task.name}: {seen[0]} alone in the {part} part, so auroc is nan there."
        if any(part in own and own[part].least == own[part].greatest for own in task.numbers):
            yield f"{task.name}: a single value in the {part} part, so r2 is nan there."


def describe(task: Task, columns: Mapping[PartName, Column]) -> TaskFacts:
    """Say what the labels of a task are, of its column in every part."""
    own = {part: column.targets for part, column in columns.items()}
    classes: dict[str, Counts] = {}
    for place, name in enumerate(class_names(task)):
        if isinstance(task, Classes | Binary):
            classes[name] = {part: int((column == place).sum()) for part, column in own.items()}
        elif isinstance(task, Segments):
            classes[name] = {
                part: int((column[:, place] > 0).sum()) if len(column) else 0
                for part, column in own.items()
            }
        elif isinstance(task, Labels):
            classes[name] = {
                part: int((column[:, place] == 1).sum()) if len(column) else 0
                for part, column in own.items()
            }
    numbers: list[dict[PartName, Spread]] = []
    if isinstance(task, Values):
        for place in range(task.n_values):
            known = {part: column[:, place] for part, column in own.items() if len(column)}
            numbers.append(_spreads({part: c[~c.isnan()].numpy() for part, c in known.items()}))
    return TaskFacts(
        task.name,
        str(task.spec()["kind"]),
        {part: len(column) for part, column in columns.items()},
        {part: len(column.labelled(task)) for part, column in columns.items()},
        classes,
        numbers,
        task.unit if isinstance(task, Values) else "",
    )


def _spreads(columns: Mapping[PartName, Any]) -> dict[PartName, Spread]:
    """Describe a number in every part; the bins of all histograms are those of all parts."""
    known = {part: column for part, column in columns.items() if len(column)}
    if not known:
        return {}
    every = np.concatenate(list(known.values()))
    ends = (float(every.min()), float(every.max()))
    return {
        part: Spread(
            float(column.min()),
            float(column.mean()),
            float(column.std(ddof=1)) if len(column) > 1 else 0.0,
            float(column.max()),
            np.histogram(column, BINS, ends)[0].tolist(),
        )
        for part, column in known.items()
    }


def overlaps(labelled: Mapping[str, frozenset[Any]]) -> list[Overlap]:
    """Count what every pair of tasks has in common, of the samples that have a label of each."""
    return [
        Overlap(a, b, len(labelled[a] & labelled[b]), len(labelled[a] | labelled[b]))
        for a, b in itertools.combinations(labelled, 2)
    ]
