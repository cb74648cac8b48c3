"""Multi-task data as tensors, and the batches cut from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Part:
    """Train, validation or test data.

    Attributes:
        inputs: uint8 images, (N, C, H, W).
        targets: for each task the class of every image, int64, (N,).
        items: for each task the index of the item it shows in its pool, (N,).
    """

    inputs: Tensor
    targets: Mapping[str, Tensor]
    items: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.inputs)

    def to(self, device: torch.device) -> Part:
        """Move everything to a device, once; batches are then cut there."""
        return Part(
            self.inputs.to(device),
            {task: target.to(device) for task, target in self.targets.items()},
            self.items,
        )


@dataclass(frozen=True)
class MultiTaskData:
    """A multi-task classification data set.

    Attributes:
        n_classes: number of classes of each task, in task order.
        train: what gradients are taken of.
        validation: what choices are made on.
        test: looked at once, at the end.
    """

    n_classes: Mapping[str, int]
    train: Part
    validation: Part
    test: Part

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(self.n_classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one input, (C, H, W)."""
        channels, height, width = self.train.inputs.shape[1:]
        return channels, height, width

    def to(self, device: torch.device) -> MultiTaskData:
        """Move all parts to a device."""
        return MultiTaskData(
            self.n_classes,
            self.train.to(device),
            self.validation.to(device),
            self.test.to(device),
        )

    def normalisation(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel of the training images, (C, 1, 1) each."""
        images = self.train.inputs.float() / 255
        mean = images.mean((0, 2, 3))
        deviation = images.std((0, 2, 3)).clamp(min=1e-6)
        return mean[:, None, None], deviation[:, None, None]


def batches(
    part: Part,
    size: int,
    generator: torch.Generator | None = None,
    *,
    share: tuple[int, int] = (0, 1),
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Cut a part into batches on its device.

    Args:
        part: the data.
        size: images in a batch.
        generator: a CPU generator that shuffles, for training; the last, smaller batch is then
            left out, unless it is the only one. Without it the order is kept, and every image.
        share: (r, n) cuts the r-th of n equal parts out of every batch.

    Yields:
        Images (B, C, H, W), uint8, and for each task its classes (B,).
    """
    stop = n_batches(part, size, shuffled=generator is not None) * size
    order = None
    if generator is not None:
        order = torch.randperm(len(part), generator=generator).to(part.inputs.device)
    for start in range(0, min(stop, len(part)), size):
        number, n_shares = share
        length = min(size, len(part) - start) // n_shares
        first = start + number * length
        chosen = slice(first, first + length)
        rows = chosen if order is None else order[chosen]
        yield (
            part.inputs[rows],
            {task: target[rows] for task, target in part.targets.items()},
        )


def n_batches(part: Part, size: int, *, shuffled: bool) -> int:
    """Count the batches that `batches` yields."""
    whole, rest = divmod(len(part), size)
    if shuffled and whole:
        return whole
    return whole + (rest > 0)
