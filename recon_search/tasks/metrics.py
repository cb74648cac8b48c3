"""The metrics of images' labels: their directions, and what computes them.

All but the loss are exact over a part, not means over batches. Those of a ranking (auroc, map) keep
its scores; the others keep counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassStatScores,
)
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

IGNORED = -100
"""The target of an image that does not have the task's label; torch's own convention."""

CLASSES = {"accuracy": 1, "balanced-accuracy": 1, "f1": 1, "auroc": 1, "error": -1, "top-5": 1}
BINARY = {"accuracy": 1, "balanced-accuracy": 1, "f1": 1, "auroc": 1, "error": -1}
LABELS = {"accuracy": 1, "f1": 1, "auroc": 1, "map": 1, "error": -1}
VALUES = {"mae": -1, "rmse": -1, "r2": 1}


def of_classes(name: str, n_classes: int) -> Metric:
    """Return a metric of scores (B, C) and classes (B,)."""
    known: dict[str, Any] = {"ignore_index": IGNORED, "validate_args": False}
    if name == "balanced-accuracy":
        return MeanRecall(n_classes, average=None, **known)
    if name == "f1":
        return MulticlassF1Score(n_classes, average="macro", **known)
    if name == "auroc":
        return OneAgainstRest()
    if name == "top-5":
        return MulticlassAccuracy(n_classes, average="micro", top_k=5, **known)
    make = MulticlassError if name == "error" else MulticlassAccuracy
    return make(n_classes, average="micro", **known)


def of_columns(name: str, n: int) -> Metric:
    """Return a metric of scores (B, n) and of targets of as many entries, 0, 1 or `IGNORED`."""
    if name in ("auroc", "map"):
        return Ranking(precision=name == "map")
    return Decisions(n, name)


class MulticlassError(MulticlassAccuracy):
    """Share of the samples that are wrong."""

    higher_is_better = False

    def compute(self) -> Tensor:
        """Return what accuracy leaves."""
        return 1 - super().compute()


class MeanRecall(MulticlassStatScores):
    """Mean recall of the classes that occur.

    torchmetrics' own counts a class that is predicted and does not occur as one of recall 0.
    """

    def compute(self) -> Tensor:
        """Return nan where no class occurs."""
        found = super().compute()  # (C, 5): the first of the last
        return (found[:, 0] / found[:, 4]).nanmean()


class Decisions(Metric):
    """What is made of the decisions of several columns, which say yes where a score is above 0.

    torchmetrics' own take scores that all happen to lie in [0, 1] for probabilities.

    Args:
        n: columns.
        name: of the metric. accuracy and error are means over the columns that have labels, f1 over
            those that have positive entries or decisions, balanced-accuracy over both classes.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, n: int, name: str) -> None:
        super().__init__()
        self.judge = _JUDGES[name]
        self.add_state("counts", torch.zeros(4, n, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Take in scores (B, n) and targets of as many entries, 0, 1 or `IGNORED`."""
        target, yes = target.reshape(output.shape), output > 0
        cases = [yes & (target == 1), yes & (target == 0), ~yes & (target == 1)]
        self.counts += torch.stack([*cases, ~yes & (target == 0)]).sum(1)

    def compute(self) -> Tensor:
        """Return the mean over columns."""
        return self.judge(*self.counts.double())


def _accuracy(hit: Tensor, false: Tensor, missed: Tensor, right: Tensor) -> Tensor:
    return ((hit + right) / (hit + false + missed + right)).nanmean()


def _error(hit: Tensor, false: Tensor, missed: Tensor, right: Tensor) -> Tensor:
    return 1 - _accuracy(hit, false, missed, right)


def _balanced(hit: Tensor, false: Tensor, missed: Tensor, right: Tensor) -> Tensor:
    return torch.cat([hit / (hit + missed), right / (right + false)]).nanmean()


def _f1(hit: Tensor, false: Tensor, missed: Tensor, right: Tensor) -> Tensor:
    return (2 * hit / (2 * hit + false + missed)).nanmean().nan_to_num(0.0)


_JUDGES = {"accuracy": _accuracy, "error": _error, "balanced-accuracy": _balanced, "f1": _f1}


class Ranking(Metric):
    """Mean over columns of how well their scores rank positive before negative entries.

    Columns without both classes are left out. It is nan where there is no other, and where a score
    is. Scores are ranked as they are: after a sigmoid the largest would be equal.

    Args:
        precision: whether average precision is meant, not the area under the ROC curve.
    """

    full_state_update = False
    scores: list[Tensor]
    targets: list[Tensor]

    def __init__(self, *, precision: bool = False) -> None:
        super().__init__()
        self.judge = binary_average_precision if precision else binary_auroc
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Take in scores (B, n) and targets of as many entries, 0, 1 or `IGNORED`."""
        self._keep(output, target.reshape(output.shape).to(torch.int8))

    def compute(self) -> Tensor:
        """Return the mean over columns."""
        scores = torch.cat(self.scores)
        if scores.isnan().any():
            return torch.tensor(torch.nan)
        pairs = self._pairs(scores, torch.cat(self.targets))
        return torch.stack([self._judge(*pair) for pair in pairs]).nanmean()

    def _keep(self, scores: Tensor, targets: Tensor) -> None:
        self.scores.append(scores.detach().cpu())  # beside a model there may be no room for them
        self.targets.append(targets.cpu())

    def _pairs(self, scores: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for column, own in zip(scores.T, targets.T, strict=True):
            known = own != IGNORED
            yield column[known], own[known]

    def _judge(self, scores: Tensor, targets: Tensor) -> Tensor:
        if not 0 < int(targets.sum()) < len(targets):
            return torch.tensor(torch.nan)
        _, places = torch.unique(scores, return_inverse=True)
        return self.judge(places.double() / len(places), targets.long(), validate_args=False)


class OneAgainstRest(Ranking):
    """AUROC of each class's share against all others', mean over classes that have both."""

    def update(self, output: Tensor, target: Tensor) -> None:
        """Take in scores (B, C) and classes (B,), `IGNORED` where there is none."""
        known = target != IGNORED
        self._keep(output[known], target[known])

    def _pairs(self, scores: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        shares = scores.double().softmax(1)
        for index, column in enumerate(shares.T):
            yield column, targets == index


class Errors(Metric):
    """Means over several numbers of their errors, each over the samples that have it.

    Args:
        name: of the metric. r2 is nan for a number that has no two different values.
        mean: of each number, by which sums are kept small.
        std: of each number.
    """

    full_state_update = False
    sums: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.judge = _ERRORS[name]
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        zeros = torch.zeros(5, len(mean), dtype=torch.double)
        self.add_state("sums", zeros, dist_reduce_fx="sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Take in outputs (B, n) in standard units and targets (B, n), nan where unknown."""
        target = target.reshape(output.shape)
        known = ~target.isnan()
        place = torch.where(known, (target.double() - self.mean) / self.std, 0.0)
        error = torch.where(known, output.double() - place, 0.0)
        sums = [known.double(), place, place.square(), error.abs(), error.square()]
        self.sums += torch.stack(sums).sum(1)

    def compute(self) -> Tensor:
        """Return the mean over those numbers of which enough is known; nan of a nan output."""
        found, is_defined = self.judge(self.sums, self.std)
        return found[is_defined].mean()


def _mae(sums: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    return std * (sums[3] / sums[0]), sums[0] > 0


def _rmse(sums: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    return std * (sums[4] / sums[0]).sqrt(), sums[0] > 0


def _r2(sums: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    n, total, total_square, _, square = sums
    spread = total_square - total.square() / n
    return 1 - square / spread, spread > 1e-12 * total_square


_ERRORS = {"mae": _mae, "rmse": _rmse, "r2": _r2}
