"""Mean and deviation of each channel, exact, without keeping an image."""

from __future__ import annotations

import torch
from torch import Tensor

from recon_search.data.source import Inputs


class Statistics:
    """Streams images; of bytes it counts how often each occurs, of numbers it keeps moments."""

    def __init__(self) -> None:
        self._counts = torch.zeros((), dtype=torch.float64)  # (C, 256) of bytes
        self._n = 0
        self._mean = self._squares = torch.zeros((), dtype=torch.float64)  # (C,) of numbers

    def update(self, images: Tensor) -> None:
        """Take in images (N, C, H, W)."""
        if images.dtype == torch.uint8:
            self._counts = self._counts + torch.stack(
                [
                    torch.bincount(channel.reshape(-1), minlength=256).cpu().double()
                    for channel in images.unbind(1)
                ]
            )
            return
        values = images.double()
        n = values[:, 0].numel()
        mean = values.mean((0, 2, 3))
        squares = (values - mean[:, None, None]).square().sum((0, 2, 3)).cpu()
        difference = mean.cpu() - self._mean
        total = self._n + n  # Chan, Golub and LeVeque 1979
        self._squares = self._squares + squares + difference.square() * (self._n * n / total)
        self._mean = self._mean + difference * (n / total)
        self._n = total

    def inputs(self) -> Inputs:
        """Return what makes images like these have mean 0 and deviation 1."""
        if not self._counts.ndim:
            deviation = (self._squares / max(1, self._n - 1)).sqrt().clamp(min=1e-6)
            return Inputs(self._mean.float(), deviation.float(), scale=1.0)
        levels = torch.arange(256, dtype=torch.float64) / 255
        n = self._counts.sum(1)
        mean = self._counts @ levels / n
        square = (self._counts * (levels - mean[:, None]).square()).sum(1)
        deviation = (square / (n - 1)).sqrt().clamp(min=1e-6)
        return Inputs(mean.float(), deviation.float())
