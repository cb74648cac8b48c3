"""One class an image: cross-entropy, accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from recon_search.tasks.meter import Meter

IGNORED = -100
"""The target of an image that does not have the task's label; torch's own convention."""


@dataclass(frozen=True)
class Classes:
    """Choose one of several classes.

    Targets are int64 classes (B,), `IGNORED` where there is no label; outputs are scores
    (B, n_classes).

    Attributes:
        name: of the task.
        n_classes: at least 2.
        weight: of its loss.
    """

    name: str
    n_classes: int
    weight: float = 1.0
    reads: ClassVar[Literal["vector"]] = "vector"
    metrics: ClassVar[dict[str, int]] = {"accuracy": 1}

    @property
    def n_outputs(self) -> int:
        """One score a class."""
        return self.n_classes

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy over the images that have a label."""
        return torch.nn.functional.cross_entropy(output.float(), target, ignore_index=IGNORED)

    def n_labels(self, target: Tensor) -> Tensor:
        """Number of images that have a label."""
        return (target != IGNORED).sum()

    def meter(self) -> Meter:
        """Accuracy in percent, and the loss."""
        accuracy = MulticlassAccuracy(
            self.n_classes, average="micro", ignore_index=IGNORED, validate_args=False
        )
        return Meter(self.loss, self.n_labels, {"accuracy": accuracy}, frozenset(["accuracy"]))

    def spec(self) -> dict[str, Any]:
        """What `create_task` makes an equal task of."""
        found = {"kind": "classes", "name": self.name, "n_classes": self.n_classes}
        return found if self.weight == 1 else {**found, "weight": self.weight}
