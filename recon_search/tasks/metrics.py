"""The metrics of images' labels: their directions, and what computes them.

All but the loss are exact over a part, not means over batches. Those of a ranking (auroc, map) keep
its scores; the others keep counts.
"""

from __future__ import annotations

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
        found, _, _, missed = self._final_state()
        return (found / (found + missed)).nanmean()


class Ranking(Metric):
    """Mean over columns of how well their scores rank positive before negative entries.

    Columns without both classes are left out; nan where there is no other, and where a score is
    nan. Scores are ranked as they are: after a sigmoid large ones would be equal.
    """

    full_state_update = False
    higher_is_better = True
    scores: list[Tensor]
    targets: list[Tensor]

    def __init__(self, *, precision: bool = False) -> None:
        super().__init__()
        self.by = binary_average_precision if precision else binary_auroc
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Take in scores (B, C) and targets (B, C), 0, 1 or `IGNORED`."""
        self.scores.append(output.detach().cpu())
        self.targets.append(target.cpu())

    def compute(self) -> Tensor:
        """Return the mean over columns."""
        scores, targets = torch.cat(self.scores), torch.cat(self.targets)
        found = [self._of(*pair) for pair in zip(scores.T, targets.T, strict=True)]
        return torch.stack(found).nanmean()

    def _of(self, scores: Tensor, targets: Tensor) -> Tensor:
        known = targets != IGNORED
        scores, targets = scores[known], targets[known]
        if not 0 < int(targets.sum()) < len(targets) or scores.isnan().any():
            return torch.tensor(torch.nan)
        _, places = torch.unique(scores, return_inverse=True)
        return self.by(places / len(places), targets, validate_args=False)


class OneAgainstRest(Ranking):
    """AUROC of each class's share against all others', mean over classes."""

    def update(self, output: Tensor, target: Tensor) -> None:
        """Take in scores (B, C) and classes (B,)."""
        known = target != IGNORED
        chosen = torch.nn.functional.one_hot(target[known], output.shape[1])
        super().update(output[known].double().softmax(1), chosen)
