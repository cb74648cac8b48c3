"""Which way the surface at each pixel faces: cosine of the angle, angles in degrees."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from recon_search.tasks import arguments, losses, maps, pixel_metrics
from recon_search.tasks.meter import Meter

EVERY = tuple(pixel_metrics.NORMALS)


@dataclass(frozen=True)
class Normals(arguments.OfOptions):
    """Say which way the surface at each pixel faces.

    Targets are float32 (B, 3, H, W); a pixel is not valid where they are zero or not finite.
    Outputs are (B, 3, H, W), of any length: only their direction counts, and that of the targets.

    Attributes:
        name: of the task.
        weight: of its loss.
        metrics: those that delta_m is made of, given by their names: mean-angle, median-angle
            (to 0.005 degrees), within-11.25, within-22.5, within-30 (shares of angles below that),
            over the valid pixels of the part.
        criterion: cosine, 1 - the cosine of the angle; l1, the mean absolute difference of the
            components of both directions.
        test_batch: see `pixel_metrics.OverBatches`; 0 takes angles over the whole part.

    Examples:
        >>> normals = Normals("facing", metrics=("mean-angle",))
        >>> target = torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1, 1)
        >>> normals.loss(torch.tensor([0.0, 3.0, 0.0]).reshape(1, 3, 1, 1), target)  # 90 degrees
        tensor(1.)
    """

    name: str
    weight: float = 1.0
    metrics: Any = field(default=EVERY, hash=False)
    criterion: Literal["cosine", "l1"] = "cosine"
    test_batch: int = 0
    reads: ClassVar[Literal["pyramid"]] = "pyramid"
    n_outputs: ClassVar[int] = 3

    def __post_init__(self) -> None:
        arguments.settle(self, pixel_metrics.NORMALS)
        arguments.among(self.name, "criterion", self.criterion, ("cosine", "l1"))
        arguments.test_batch(self)

    @property
    def units(self) -> dict[str, str]:
        """Angles in degrees, and shares."""
        return {name: "%" if name in pixel_metrics.WITHIN else "°" for name in self.metrics}

    def target(self, picture: Any) -> Tensor:
        """Read directions, float32 (3, H, W) of length 1, zero where not valid.

        Of uint8 pictures, 0 to 255 stand for -1 to 1; black pixels, and those that are nearly grey
        (shorter than a half), are not valid.

        Raises:
            LabelError: they have another shape.
        """
        found = maps.vectors(picture, self.name)
        least = 0.0
        if found.dtype == np.uint8:
            found = np.where((found == 0).all(0), 0.0, found / 127.5 - 1)
            least = 0.5
        directions = torch.from_numpy(found.astype(np.float64))
        length = directions.norm(dim=0)
        known = length.isfinite() & (length > least)
        return torch.where(known, directions / length, 0.0).float()

    def blank(self, size: tuple[int, int]) -> Tensor:
        """Return the target of an image of this size (H, W) that has no label."""
        return torch.zeros(3, *size)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The criterion, the mean over valid pixels."""
        known = self._is_known(target)
        real = torch.where(known[:, None], target.float(), 0.0)
        found, real = losses.directions(output.float()), losses.directions(real)
        if self.criterion == "l1":
            return losses.mean_of_known((found - real).abs().mean(1), known)
        return losses.mean_of_known(1 - (found * real).sum(1), known)

    def n_labels(self, target: Tensor) -> Tensor:
        """Number of valid pixels."""
        return self._is_known(target).sum()

    def meter(self) -> Meter:
        """Its metrics, and the loss."""
        found: pixel_metrics.PixelMetric = pixel_metrics.Angles(self.metrics, self._is_known)
        if self.test_batch:
            found = pixel_metrics.OverBatches(found, self.test_batch, self.n_labels)
        shares = frozenset(pixel_metrics.WITHIN)
        return Meter(self.loss, self.n_labels, {"pixels": found}, shares, found.names)

    def decode(self, output: Tensor) -> Tensor:
        """Return directions of length 1, float32 (B, 3, H, W)."""
        return losses.directions(output.detach().float())

    def spec(self) -> dict[str, Any]:
        """What `create_task` makes an equal task of."""
        return arguments.spec(self, "normals")

    @staticmethod
    def _is_known(target: Tensor) -> Tensor:
        """Where targets (B, 3, H, W) are valid, (B, H, W)."""
        return target.isfinite().all(1) & (target != 0).any(1)
