"""Yes or no for each pixel, where yes is rare: borders, or what catches the eye."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from recon_search.errors import LabelError
from recon_search.tasks import arguments, losses, maps, pixel_metrics
from recon_search.tasks.meter import Meter
from recon_search.tasks.metrics import IGNORED


@dataclass(frozen=True)
class Edges(arguments.OfOptions):
    """Say of each pixel whether it is one: on a border, or salient.

    Targets are int64 (B, H, W), or (B, 1, H, W): 1 for yes, 0 for no, `IGNORED` where there is no
    label; outputs are scores (B, 1, H, W), above 0 for yes.

    Attributes:
        name: of the task.
        weight: of its loss.
        metrics: those that delta_m is made of, given by their names: best-f1 (of yes, at the best
            of 99 thresholds for the whole part; this is odsF without its tolerance of position,
            so lower than what is published under that name), f1 (at probability 0.5), accuracy,
            best-iou (of yes, mean over images, at the best of the thresholds 0.2, 0.25, ..., 0.9
            for the whole part, as PASCAL-Context's saliency is judged).
        positive_weight: of pixels that are yes, in (0, 1), in binary cross-entropy; those that are
            no weigh the rest to 1, for instance 0.95 and 0.05. "balanced" takes the share of an
            image's pixels that are no (HED, arXiv 1504.06375, equation 2): an image without yes
            then has no loss.
        ignore_index: values of pixels in files that are no label; one or several.
        threshold: what stands in files is yes above it.
    """

    name: str
    weight: float = 1.0
    metrics: Any = field(default=("best-f1",), hash=False)
    positive_weight: float | Literal["balanced"] = "balanced"
    ignore_index: Any = ()
    threshold: float = 0.0
    reads: ClassVar[Literal["pyramid"]] = "pyramid"
    n_outputs: ClassVar[int] = 1

    def __post_init__(self) -> None:
        arguments.settle(self, pixel_metrics.EDGES)
        name, weight = self.name, self.positive_weight
        if weight != "balanced":
            words = 'in (0, 1), or "balanced"'
            arguments.number(name, "positive_weight", weight, lambda w: 0 < w < 1, words)
        ignored = arguments.whole_numbers(name, "ignore_index", self.ignore_index)
        arguments.put(self, "ignore_index", ignored)
        arguments.number(name, "threshold", self.threshold, lambda each: each >= 0, "from 0 on")

    @property
    def units(self) -> dict[str, str]:
        """All are shares."""
        return dict.fromkeys(self.metrics, "%")

    def target(self, picture: Any) -> Tensor:
        """Read where it is yes, int64 (H, W).

        Raises:
            LabelError: it has another shape, or a value that is no number from 0 on.
        """
        found = maps.one_number(picture, self.name)
        ignored = np.isin(found, self.ignore_index)
        wrong = ~ignored & ~(found >= 0)
        if wrong.any():
            raise LabelError(
                f"Task '{self.name}' must be given numbers from 0 on, found {found[wrong][0]:g} in "
                f"{wrong.sum()} pixels. Correct them, or name the value in `ignore_index`."
            )
        yes = (found > self.threshold).astype(np.int64)
        return torch.from_numpy(np.where(ignored, IGNORED, yes))

    def blank(self, size: tuple[int, int]) -> Tensor:
        """Return the target of an image of this size (H, W) that has no label."""
        return torch.full(size, IGNORED)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Binary cross-entropy, weighted as each image asks for, over the pixels with a label."""
        target = target.reshape(output.shape)
        known, yes = target != IGNORED, target == 1
        found = F.binary_cross_entropy_with_logits(output.float(), yes.float(), reduction="none")
        weight: Any = self.positive_weight
        if weight == "balanced":
            n, n_yes = (each.flatten(1).sum(1).float() for each in (known, yes))
            weight = (1 - n_yes / n.clamp(min=1))[:, None, None, None]
        return losses.mean_of_known(found * torch.where(yes, weight, 1 - weight), known)

    def n_labels(self, target: Tensor) -> Tensor:
        """Number of pixels that have a label."""
        return (target != IGNORED).sum()

    def meter(self) -> Meter:
        """Its metrics, and the loss."""
        of_images = [name for name in self.metrics if name == "best-iou"]
        of_pixels = [name for name in self.metrics if name != "best-iou"]
        found: dict[str, Metric] = {}
        if of_pixels:
            found["pixels"] = pixel_metrics.Thresholded(of_pixels)
        if of_images:
            found["images"] = pixel_metrics.BestIoU(of_images)
        names = tuple(self.metrics)
        return Meter(self.loss, self.n_labels, found, frozenset(names), names)

    def decode(self, output: Tensor) -> Tensor:
        """Return the probability of yes, float32 (B, H, W)."""
        return output.detach().float()[:, 0].sigmoid()

    def spec(self) -> dict[str, Any]:
        """What `create_task` makes an equal task of."""
        return arguments.spec(self, "edges")
