"""Data that is whole tensors: loaded once, kept on the device, cut into batches there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from recon_search.artefact import digest
from recon_search.data.source import Batch, Inputs, PartName, Schema, Step


@dataclass(frozen=True)
class Part:
    """Train, validation or test data.

    Attributes:
        inputs: uint8 images, (N, C, H, W).
        targets: for each task the target of every image, (N, ...).
    """

    inputs: Tensor
    targets: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.inputs)

    def to(self, device: torch.device) -> Part:
        """Move everything to a device, once; batches are then cut there."""
        targets = {task: target.to(device) for task, target in self.targets.items()}
        return Part(self.inputs.to(device), targets)


@dataclass(frozen=True)
class ResidentFeed:
    """Steps of data that is held in tensors.

    Attributes:
        schema: what it holds.
        parts: by name, all on one device.
    """

    schema: Schema
    parts: Mapping[PartName, Part]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.parts["train"].inputs.device

    @cached_property
    def inputs(self) -> Inputs:
        """Mean and deviation of each channel of the training images, exact, without a copy."""
        levels = torch.arange(256, dtype=torch.float64) / 255
        counts = torch.stack(
            [
                torch.bincount(channel.reshape(-1), minlength=256).cpu().double()
                for channel in self.parts["train"].inputs.unbind(1)
            ]
        )  # (C, 256)
        n = counts.sum(1)
        mean = counts @ levels / n
        square = (counts * (levels - mean[:, None]).square()).sum(1)
        deviation = (square / (n - 1)).sqrt().clamp(min=1e-6)
        return Inputs(mean.float().to(self.device), deviation.float().to(self.device))

    def n_samples(self, part: PartName) -> int:
        """Number of inputs in a part."""
        return len(self.parts[part])

    def n_steps(self, part: PartName, size: int, *, shuffled: bool) -> int:
        """Number of steps that `steps` yields."""
        whole, rest = divmod(len(self.parts[part]), size)
        if shuffled and whole:
            return whole
        return whole + (rest > 0)

    def steps(
        self,
        part: PartName,
        size: int,
        order: tuple[int, int] | None = None,
        *,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[Step]:
        """Cut a part into steps of one batch (see `Feed.steps`)."""
        own = self.parts[part]
        stop = self.n_steps(part, size, shuffled=order is not None) * size
        rows = None if order is None else permutation(len(own), order).to(self.device)
        for start in range(0, min(stop, len(own)), size):
            number, n_shares = share
            length = min(size, len(own) - start) // n_shares
            first = start + number * length
            chosen = slice(first, first + length)
            picked = chosen if rows is None else rows[chosen]
            targets = {task: target[picked] for task, target in own.targets.items()}
            yield (Batch(own.inputs[picked], targets),)


def permutation(n: int, order: tuple[int, int]) -> Tensor:
    """Shuffle n samples; a function of (seed, epoch) alone."""
    generator = torch.Generator().manual_seed(int(digest(list(order))[:12], 16))
    return torch.randperm(n, generator=generator)
