"""How far each pixel is: absolute error, or a scale-invariant one in logarithms."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from recon_search.tasks import arguments, losses, maps, pixel_metrics
from recon_search.tasks.meter import Meter

CRITERIA = ("l1", "silog")


@dataclass(frozen=True)
class Depth(arguments.OfOptions):
    """Say how far each pixel is.

    Targets are float32 (B, H, W), or (B, 1, H, W), in the user's unit; a pixel is not valid where
    they are nan, infinite, zero or below. Outputs are (B, 1, H, W): depths for the criterion l1,
    their natural logarithms for silog. Inverse depth (disparity) does as well; its relative error
    is then that of the inverse.

    Attributes:
        name: of the task.
        weight: of its loss.
        metrics: those that delta_m is made of, given by their names: abs-error, rmse (in the unit),
            rel-error (mean of error over depth, 0.1 for 10 %), over the valid pixels of the part.
        unit: of depths, as tables name it.
        criterion: l1, the mean absolute error; silog, the scale-invariant error of logarithms of
            an image, images weighed by their valid pixels (Eigen, arXiv 1406.2283, equation 4).
        invariance: what of an image's mean error in logarithms silog forgives: 0 nothing, 1 all.
        zoom: what becomes of the depths in a part of an image that is cut out and enlarged: they
            are divided by how much, or multiplied, as inverse depths are (CityScapes', which
            published code divides all the same).
        test_batch: see `pixel_metrics.OverBatches`; 0 takes errors over the whole part.
        scale: what values in files are multiplied by to be in the unit: 0.001 of whole millimetres
            if the unit is a metre.

    Examples:
        >>> depth = Depth("distance", unit="m", scale=0.001)
        >>> depth.target(np.array([[1500, 0]]))  # millimetres; 0 is none
        tensor([[1.5000,    nan]])
        >>> depth.metrics, depth.units
        ({'abs-error': -1, 'rel-error': -1}, {'abs-error': 'm', 'rel-error': ''})
    """

    name: str
    weight: float = 1.0
    metrics: Any = field(default=("abs-error", "rel-error"), hash=False)
    unit: str = ""
    criterion: Literal["l1", "silog"] = "l1"
    invariance: float = 0.5
    scale: float = 1.0
    zoom: Literal["divide", "multiply"] = "divide"
    test_batch: int = 0
    reads: ClassVar[Literal["pyramid"]] = "pyramid"
    n_outputs: ClassVar[int] = 1

    def __post_init__(self) -> None:
        arguments.settle(self, pixel_metrics.DEPTH)
        arguments.unit(self)
        arguments.among(self.name, "criterion", self.criterion, CRITERIA)
        arguments.number(
            self.name, "invariance", self.invariance, lambda each: 0 <= each <= 1, "in [0, 1]"
        )
        arguments.among(self.name, "zoom", self.zoom, ("divide", "multiply"))
        arguments.test_batch(self)
        arguments.number(self.name, "scale", self.scale, lambda each: each > 0, "above 0")

    @property
    def units(self) -> dict[str, str]:
        """The user's, but of a relative error, which has none."""
        return {name: "" if name == "rel-error" else self.unit for name in self.metrics}

    def target(self, picture: Any) -> Tensor:
        """Read depths, float32 (H, W), nan where not valid.

        Raises:
            LabelError: they have another shape.
        """
        stored = maps.one_number(picture, self.name).astype(np.float64)
        found = torch.from_numpy((stored * self.scale).astype(np.float32))
        return torch.where(self._is_known(found), found, torch.nan)

    def blank(self, size: tuple[int, int]) -> Tensor:
        """Return the target of an image of this size (H, W) that has no label."""
        return torch.full(size, torch.nan)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The criterion over valid pixels."""
        target, found = target.reshape(output.shape).float(), output.float()
        known = self._is_known(target)
        real = torch.where(known, target, 1.0)
        if self.criterion == "l1":
            return losses.mean_of_known((found - real).abs(), known)
        error = torch.where(known, found - real.log(), 0.0).flatten(1)
        n = known.flatten(1).sum(1)
        forgiven = self.invariance * error.sum(1).square() / n.clamp(min=1)
        return (error.square().sum(1) - forgiven).sum() / n.sum()

    def n_labels(self, target: Tensor) -> Tensor:
        """Number of valid pixels."""
        return self._is_known(target).sum()

    def meter(self) -> Meter:
        """Its metrics, and the loss."""
        found: pixel_metrics.PixelMetric
        found = pixel_metrics.DepthErrors(self.metrics, self.decode, self._is_known)
        if self.test_batch:
            found = pixel_metrics.OverBatches(found, self.test_batch, self.n_labels)
        return Meter(self.loss, self.n_labels, {"pixels": found}, names=found.names)

    def decode(self, output: Tensor) -> Tensor:
        """Return depths in the unit, float32 (B, H, W)."""
        found = output.detach().float()[:, 0]
        return found.exp() if self.criterion == "silog" else found

    def spec(self) -> dict[str, Any]:
        """What `create_task` makes an equal task of."""
        return arguments.spec(self, "depth")

    @staticmethod
    def _is_known(target: Tensor) -> Tensor:
        return target.isfinite() & (target > 0)
