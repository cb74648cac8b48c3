"""The metrics of yes or no for each pixel: borders by their position, what is salient by images.

All are accumulated at many thresholds at once, so that the best is that of a whole part.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from recon_search.tasks.metrics import IGNORED
from recon_search.tasks.pixel_metrics import PixelMetric

POOLED = ("best-f1", "f1", "accuracy")
NEAR = ("boundary-f",)
BY_IMAGE = ("best-jaccard", "max-f")
EDGES = dict.fromkeys((*POOLED, *NEAR, *BY_IMAGE), 1)

THRESHOLDS = 100
"""Probabilities are counted in bins of 0.01: 99 thresholds between them, as BSDS has them."""

SALIENT = tuple((20 + 5 * step) / 100 for step in range(15))
"""Thresholds of what is salient: 0.20, 0.25 to 0.90."""


def edge_metrics(names: Iterable[str], tolerance: float) -> Mapping[str, Metric]:
    """Make what computes the values that are named, and no other.

    Args:
        names: of values.
        tolerance: of a border's position, as a share of the image's diagonal.
    """
    names = tuple(names)
    kinds = {
        "pooled": (Thresholded, POOLED),
        "near": (lambda own: BoundaryF(own, tolerance), NEAR),
        "images": (ByImage, BY_IMAGE),
    }
    chosen = {
        kind: (make, [name for name in names if name in known])
        for kind, (make, known) in kinds.items()
    }
    return {kind: make(own) for kind, (make, own) in chosen.items() if own}


def _from_each_bin_on(counts: Tensor) -> Tensor:
    """Sum counts (..., bins) over each bin and those above it."""
    return counts.flip(-1).cumsum(-1).flip(-1)


def _f(precision: Tensor, recall: Tensor) -> Tensor:
    """The harmonic mean; 0 where both are 0 or there are none."""
    return torch.nan_to_num(2 * precision * recall / (precision + recall))


class Thresholded(PixelMetric):
    """What is made of the decisions of one score a pixel, at 0.5 and at the best threshold.

    Args:
        names: of the values.
    """

    counts: Tensor

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__(names)
        counts = torch.zeros(2, THRESHOLDS, dtype=torch.long)
        self.add_state("counts", counts, dist_reduce_fx="sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Take in scores (B, 1, H, W) and 0, 1 or `IGNORED` (B, H, W), or (B, 1, H, W)."""
        target = target.reshape(output.shape)
        share = output.double().sigmoid()
        for value, counts in enumerate(self.counts):
            counts += _histogram(self.keep(share[target == value]))

    def value(self, name: str) -> Tensor:
        """Compute a share; a pixel is positive from the threshold on."""
        negative, positive = self.counts.double()
        false, hit = map(_from_each_bin_on, (negative, positive))
        middle = THRESHOLDS // 2
        if name == "accuracy":
            right = hit[middle] + negative.sum() - false[middle]
            return torch.as_tensor(right / self.counts.sum())
        f1 = torch.nan_to_num(2 * hit / (hit + false + positive.sum()))
        return f1[middle] if name == "f1" else f1[1:].max()


class BoundaryF(PixelMetric):
    """F of borders at the best threshold for the whole part, at nearly the right place.

    Precision is the share of the pixels said to be on a border that have a true one within the
    tolerance, recall the share of true ones that have one said to be within it; each is pooled over
    the images before F is taken. That is odsF (Martin et al., TPAMI 2004) without its matching of
    one pixel to one other, and without its thinning of borders: a thick border is not punished as
    long as it is not thicker than the tolerance.

    What lies within the tolerance of a pixel at any threshold is said by the largest probability
    in a disk around it, so all thresholds take one pass.

    Args:
        names: of the values.
        tolerance: as a share of the image's diagonal; the distance is that of pixels' centres.
    """

    said: Tensor
    found: Tensor

    def __init__(self, names: Iterable[str], tolerance: float) -> None:
        super().__init__(names)
        self.tolerance = tolerance
        said = torch.zeros(2, THRESHOLDS, dtype=torch.long)  # far from a true border, and near
        self.add_state("said", said, dist_reduce_fx="sum")
        found = torch.zeros(THRESHOLDS, dtype=torch.long)
        self.add_state("found", found, dist_reduce_fx="sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Take in scores (B, 1, H, W) and 0, 1 or `IGNORED` (B, H, W), or (B, 1, H, W)."""
        target = target.reshape(output.shape)
        known, yes = target != IGNORED, target == 1
        share = output.double().sigmoid()
        self.keep(share[known])
        share = share.nan_to_num(0.0)
        radius = self.tolerance * math.hypot(*output.shape[-2:])
        near = largest_around(yes.double(), radius) > 0
        for is_near, counts in enumerate(self.said):
            counts += _histogram(share[known & (near == bool(is_near))])
        around = largest_around(share.where(known, 0.0), radius)
        self.found += _histogram(around[yes])

    def value(self, name: str) -> Tensor:
        """Compute F; a pixel is said to be on a border from the threshold on."""
        far, near = _from_each_bin_on(self.said).double()
        found = _from_each_bin_on(self.found).double()
        return _f(near / (near + far), found / found[0])[1:].max()


class ByImage(PixelMetric):
    """What is salient: shares of each image, their means over images, the best of 15 thresholds.

    best-jaccard is the mean Jaccard index, max-f is 2 P R / (P + R) of mean precision P and mean
    recall R, as papers on PASCAL-Context take them (ASTMT, arXiv 1904.08918, and those after it).
    All are 1 for an image in which nothing is salient nor said to be, and 0 where only one of the
    two is nothing. Images without a labelled pixel do not count.

    Args:
        names: of the values.
    """

    sums: Tensor
    n: Tensor

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__(names)
        sums = torch.zeros(3, len(SALIENT), dtype=torch.double)
        self.add_state("sums", sums, dist_reduce_fx="sum")
        self.add_state("n", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Take in scores (B, 1, H, W) and 0, 1 or `IGNORED` (B, H, W), or (B, 1, H, W)."""
        target = target.reshape(output.shape)
        share = output.double().sigmoid()
        self.keep(share[target != IGNORED])
        share = share.nan_to_num(0.0)
        n, n_bins = len(output), len(SALIENT) + 1
        limits = torch.tensor(SALIENT, dtype=torch.double, device=output.device)
        bins = torch.bucketize(share, limits)  # how many thresholds it exceeds
        bins = bins + n_bins * torch.arange(n, device=output.device)[:, None, None, None]
        counts = torch.stack(
            [torch.bincount(bins[target == each], minlength=n * n_bins) for each in (0, 1)]
        )
        above = _from_each_bin_on(counts.reshape(2, n, n_bins)).double()
        true = above[1, :, :1]
        false_said, hit = above[0, :, 1:], above[1, :, 1:]  # (n, 15)
        union = true + false_said
        shares = torch.stack([torch.nan_to_num(hit / of) for of in (union, hit + false_said, true)])
        is_known = (above[:, :, 0].sum(0) > 0)[:, None]
        own = shares.where(union > 0, 1.0).where(is_known, 0.0)
        self.sums += own.sum(1)
        self.n += is_known.sum()

    def value(self, name: str) -> Tensor:
        """Compute a share."""
        jaccard, precision, recall = self.sums / self.n
        return jaccard.max() if name == "best-jaccard" else _f(precision, recall).max()


def largest_around(maps: Tensor, radius: float) -> Tensor:
    """Return the largest value within a distance of each pixel of maps (B, C, H, W), from 0 on.

    A row of the disk after another: as long as its chord, as far up or down as it lies.

    Args:
        maps: of values that are not negative; beyond their borders there is nothing.
        radius: in pixels, between centres.
    """
    height, width = maps.shape[-2:]
    found = maps
    reach = min(int(radius), height - 1)
    for down in range(-reach, reach + 1):
        half = min(int(math.sqrt(radius**2 - down**2)), width - 1)
        chord = F.max_pool2d(maps, (1, 2 * half + 1), 1, (0, half))
        first, last = max(0, down), height + min(0, down)
        moved = chord[..., first:last, :]
        found = torch.maximum(found, F.pad(moved, (0, 0, max(0, -down), max(0, down))))
    return found


def _histogram(shares: Tensor) -> Tensor:
    bins = (shares * THRESHOLDS).long().clamp(max=THRESHOLDS - 1)
    return torch.bincount(bins, minlength=THRESHOLDS)
