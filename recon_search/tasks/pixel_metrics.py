"""The metrics of pixels' labels: streamed as sums and histograms, no output is kept.

All are over the valid pixels of a whole part. Means over batches, as much published code takes
them, depend on the batch size and weigh an image with few valid pixels like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torchmetrics import Metric

from recon_search.tasks import losses
from recon_search.tasks.metrics import IGNORED

SEGMENTS = {"miou": 1, "pixel-accuracy": 1}
DEPTH = {"abs-error": -1, "rel-error": -1, "rmse": -1}
WITHIN = {"within-11.25": 11.25, "within-22.5": 22.5, "within-30": 30.0}
"""Shares of angles, and the degrees that they are below."""
NORMALS = {"mean-angle": -1, "median-angle": -1, **dict.fromkeys(WITHIN, 1)}

BINS_A_DEGREE = 100
"""Angles are counted in bins of 0.01 degrees, in the middle of which the median is said to be."""


class PixelMetric(Metric):
    """Several values of one accumulated state; nan where an output at a valid pixel was nan.

    Args:
        names: of the values that `compute` returns.
    """

    full_state_update = False
    n_lost: Tensor

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.add_state("n_lost", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def compute(self) -> dict[str, Tensor]:
        """Return the values by name."""
        lost = torch.where(self.n_lost > 0, torch.nan, 0.0)
        return {name: self.value(name).cpu() + lost.cpu() for name in self.names}

    def value(self, name: str) -> Tensor:
        """Compute a value."""
        raise NotImplementedError

    def keep(self, values: Tensor) -> Tensor:
        """Return those that are not nan, and count the others."""
        is_lost = values.isnan()
        self.n_lost += is_lost.sum()
        return values[~is_lost]


class Confusion(PixelMetric):
    """mIoU and pixel accuracy of one confusion matrix.

    Classes that neither occur nor are predicted have no IoU and do not enter its mean.

    Args:
        names: of the values.
        n_classes: C.
    """

    counts: Tensor

    def __init__(self, names: Iterable[str], n_classes: int) -> None:
        super().__init__(names)
        self.n_classes = n_classes
        counts = torch.zeros(n_classes, n_classes, dtype=torch.long)
        self.add_state("counts", counts, dist_reduce_fx="sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Take in scores (B, C, H, W) and classes (B, H, W), `IGNORED` where unknown."""
        target = target.reshape(len(output), *output.shape[2:])
        known = target != IGNORED
        best = output.max(1)
        self.keep(best.values[known])
        cells = self.n_classes * target[known].long() + best.indices[known]
        found = torch.bincount(cells, minlength=self.n_classes**2)
        self.counts += found.reshape(self.n_classes, self.n_classes)

    def value(self, name: str) -> Tensor:
        """Compute a share; rows are what occurs, columns what is predicted."""
        counts = self.counts.double()
        hit = counts.diag()
        if name == "pixel-accuracy":
            return hit.sum() / counts.sum()
        return (hit / (counts.sum(0) + counts.sum(1) - hit)).nanmean()


class DepthErrors(PixelMetric):
    """Mean absolute and relative error, and root of the mean square, over valid pixels.

    Args:
        names: of the values.
        decode: makes depths (B, H, W) of outputs.
        is_known: says where targets are valid.
    """

    sums: Tensor

    def __init__(
        self,
        names: Iterable[str],
        decode: Callable[[Tensor], Tensor],
        is_known: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__(names)
        self.decode, self.is_known = decode, is_known
        self.add_state("sums", torch.zeros(4, dtype=torch.double), dist_reduce_fx="sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Take in outputs (B, 1, H, W) and depths (B, H, W), or (B, 1, H, W)."""
        found = self.decode(output)
        target = target.reshape(found.shape)
        known = self.is_known(target)
        real = target[known].double()
        error = (found[known].double() - real).abs()
        own = [torch.ones_like(real), error, error / real, error.square()]
        self.sums += torch.stack(own).sum(1)

    def value(self, name: str) -> Tensor:
        """Compute an error."""
        index = {"abs-error": 1, "rel-error": 2, "rmse": 3}[name]
        mean = self.sums[index] / self.sums[0]
        return mean.sqrt() if name == "rmse" else mean


class Angles(PixelMetric):
    """What is made of the angles between predicted and true directions, in degrees.

    Args:
        names: of the values.
        is_known: says where targets (B, 3, H, W) are valid, (B, H, W).
    """

    counts: Tensor
    below: Tensor
    total: Tensor

    def __init__(self, names: Iterable[str], is_known: Callable[[Tensor], Tensor]) -> None:
        super().__init__(names)
        self.is_known = is_known
        counts = torch.zeros(180 * BINS_A_DEGREE, dtype=torch.long)
        self.add_state("counts", counts, dist_reduce_fx="sum")
        below = torch.zeros(len(WITHIN), dtype=torch.long)
        self.add_state("below", below, dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.double), dist_reduce_fx="sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Take in outputs and targets (B, 3, H, W), of any length."""
        known = self.is_known(target)
        pair = (each.movedim(1, -1)[known].double() for each in (output, target))
        found, real = map(losses.directions, pair)  # (N, 3)
        cosine = (found * real).sum(1).clamp(-1, 1)
        angles = self.keep(cosine.acos().rad2deg())  # in double: in single, 0 may become 0.03
        self.total += angles.sum()
        self.below += torch.stack([(angles < limit).sum() for limit in WITHIN.values()])
        bins = (angles * BINS_A_DEGREE).long().clamp(max=len(self.counts) - 1)
        self.counts += torch.bincount(bins, minlength=len(self.counts))

    def value(self, name: str) -> Tensor:
        """Compute a mean, a median or a share."""
        n = self.counts.sum()
        if name == "mean-angle":
            return self.total / n
        if name == "median-angle":
            middle = torch.stack([(n + 1) // 2, n // 2 + 1])
            bins = torch.searchsorted(self.counts.cumsum(0), middle)
            return ((bins + 0.5) / BINS_A_DEGREE).mean()
        return self.below[list(WITHIN).index(name)] / n


class OverBatches(PixelMetric):
    """Means of another metric's values over batches of a fixed size, as published code takes them.

    Whatever comes at once, so many samples are a batch, in order; of the last, what is left. A
    batch without a label does not count, a sample without one takes its place in one. With batches
    of 1 each image weighs alike.

    Args:
        metric: computes the values of a batch.
        size: of a batch.
        n_labels: counts labels.
    """

    counts_all = True
    sums: Tensor
    n: Tensor
    outputs: list[Tensor]
    targets: list[Tensor]

    def __init__(
        self, metric: PixelMetric, size: int, n_labels: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__(metric.names)
        self.metric, self.size, self.n_labels = metric, size, n_labels
        self.add_state("sums", torch.zeros(len(self.names), dtype=torch.double), "sum")
        self.add_state("n", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("outputs", [], dist_reduce_fx="cat")  # of the batch that is not yet full
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Take in what the metric does."""
        outputs = torch.split(torch.cat([*self.outputs, output]), self.size)
        targets = torch.split(torch.cat([*self.targets, target]), self.size)
        self.outputs, self.targets = [], []
        for found, real in zip(outputs, targets, strict=True):
            if len(found) < self.size:
                self.outputs, self.targets = [found], [real]
            else:
                self._add(found, real)

    def compute(self) -> dict[str, Tensor]:
        """Return the means; what is left counts as a batch."""
        sums, n = self.sums.clone(), self.n.clone()
        for found, real in zip(self.outputs, self.targets, strict=True):
            self._add(found, real)
        means = self.sums / self.n
        self.sums, self.n = sums, n
        return {name: mean.cpu() for name, mean in zip(self.names, means, strict=True)}

    def _add(self, output: Tensor, target: Tensor) -> None:
        if not self.n_labels(target):
            return
        self.metric.reset()
        self.metric.update(output, target)
        own = self.metric.compute()
        self.sums += torch.stack([own[name].to(self.sums) for name in self.names])
        self.n += 1
