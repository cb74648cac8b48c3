"""Numbers at random as torch and torchvision draw them, at less than half of what these take.

Between images, which go through all of a processor's caches, a call of torch takes several times as
long as in a loop of its own: the box of a crop took 140 of a training image's 1,800 microseconds.
"""

from __future__ import annotations

import functools
import math

import torch


class Draws:
    """Draws from torch's default generator: what torch draws from it in as many calls, no more."""

    def __init__(self) -> None:
        self._real = torch.empty(1, dtype=torch.float32, device="cpu")
        self._whole = torch.empty(1, dtype=torch.int64, device="cpu")

    def real(self, low: float = 0.0, high: float = 1.0) -> float:
        """Draw from [low, high) in single precision."""
        return self._real.uniform_(low, high).item()

    def chance(self, share: float) -> bool:
        """Draw yes with a probability, in single precision."""
        return self.real() < _single(share)

    def below(self, n: int) -> int:
        """Draw from 0 to n - 1."""
        return int(self._whole.random_(0, n).item())

    def box(
        self, size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
    ) -> tuple[int, int, int, int]:
        """Draw what torchvision's `RandomResizedCrop` cuts out.

        Args:
            size: (H, W) of the image.
            scale: least and most share of its area.
            ratio: least and most width by height; its logarithm is uniform.

        Returns:
            Top, left, height and width; of the middle, where none of ten draws fits.
        """
        height, width = size
        slim, wide = _logarithms(*ratio)
        for _ in range(10):
            area = height * width * self.real(*scale)
            aspect = self._real.uniform_(slim, wide).exp_().item()
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return self.below(height - h + 1), self.below(width - w + 1), h, w
        w, h = width, height
        if width / height < min(ratio):
            h = round(w / min(ratio))
        elif width / height > max(ratio):
            w = round(h * max(ratio))
        return (height - h) // 2, (width - w) // 2, h, w


@functools.cache
def _single(number: float) -> float:
    return torch.tensor(number, dtype=torch.float32, device="cpu").item()


@functools.cache
def _logarithms(*numbers: float) -> list[float]:
    found = torch.tensor(numbers, dtype=torch.float32, device="cpu").log()
    return list(found.tolist())
