"""Yes or no for each pixel, where yes is rare: borders, or what catches the eye."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recon_search.errors import LabelError
from recon_search.tasks import arguments, edge_metrics, losses, maps
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
        metrics: those that delta_m is made of, given by their names. Over the pixels of the part:
            best-f1 (of yes, at the best of 99 thresholds for the whole part, pixel by pixel), f1
            (at probability 0.5), accuracy. Of borders: boundary-f, the same at nearly the right
            place, which is odsF without its one-to-one matching and thinning (see
            `edge_metrics.BoundaryF`). Of what is salient: best-jaccard and max-f, of means over
            images at the best of 15 thresholds (see `edge_metrics.ByImage`).
        positive_weight: of pixels that are yes, in (0, 1), in binary cross-entropy; those that are
            no weigh the rest to 1, for instance 0.95 and 0.05. "balanced" takes the share of an
            image's pixels that are no (HED, arXiv 1504.06375, equation 2): an image without yes
            then has no loss.
        ignore_index: values of pixels in files that are no label; one or several.
        threshold: what stands in files is yes above it.
        tolerance: of a border's position in boundary-f, as a share of the image's diagonal:
            0.0075 in BSDS and PASCAL-Context, 0.011 in NYUD.

    Examples:
        >>> edges = Edges("borders", ignore_index=7)
        >>> edges.target(np.array([[0, 1], [7, 255]]))
        tensor([[   0,    1],
                [-100,    1]])
    """

    name: str
    weight: float = 1.0
    metrics: Any = field(default=("best-f1",), hash=False)
    positive_weight: float | Literal["balanced"] = "balanced"
    ignore_index: Any = ()
    threshold: float = 0.0
    tolerance: float = 0.0075
    reads: ClassVar[Literal["pyramid"]] = "pyramid"
    n_outputs: ClassVar[int] = 1

    def __post_init__(self) -> None:
        arguments.settle(self, edge_metrics.EDGES)
        name, weight = self.name, self.positive_weight
        if weight != "balanced":
            words = 'in (0, 1), or "balanced"'
            arguments.number(name, "positive_weight", weight, lambda w: 0 < w < 1, words)
        ignored = arguments.whole_numbers(name, "ignore_index", self.ignore_index)
        arguments.put(self, "ignore_index", ignored)
        arguments.number(name, "threshold", self.threshold, lambda each: each >= 0, "from 0 on")
        arguments.number(name, "tolerance", self.tolerance, lambda t: 0 <= t <= 1, "in [0, 1]")

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
        found = edge_metrics.edge_metrics(self.metrics, self.tolerance)
        names = tuple(self.metrics)
        return Meter(self.loss, self.n_labels, found, frozenset(names), names)

    def decode(self, output: Tensor) -> Tensor:
        """Return the probability of yes, float32 (B, H, W)."""
        return output.detach().float()[:, 0].sigmoid()

    def spec(self) -> dict[str, Any]:
        """What `create_task` makes an equal task of."""
        return arguments.spec(self, "edges")
