"""Data that is whole tensors: loaded once, kept on the device, cut into batches there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from recon_search.data.order import n_steps, permutation, spans
from recon_search.data.source import Batch, Inputs, PartName, Schema, Step
from recon_search.data.statistics import Statistics


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
        known: how inputs are made ready; None takes the training part's mean and deviation.
    """

    schema: Schema
    parts: Mapping[PartName, Part]
    known: Inputs | None = None

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return next(iter(self.parts.values())).inputs.device

    @cached_property
    def inputs(self) -> Inputs:
        """How inputs are made ready; of what is not known, mean and deviation are taken here."""
        if self.known is not None:
            return self.known
        statistics = Statistics()
        statistics.update(self.parts["train"].inputs)
        found = statistics.inputs()
        return replace(found, mean=found.mean.to(self.device), std=found.std.to(self.device))

    def n_samples(self, part: PartName) -> int:
        """Number of inputs in a part."""
        return len(self.parts[part])

    def n_steps(self, part: PartName, size: int, *, shuffled: bool) -> int:
        """Number of steps that `steps` yields."""
        return n_steps(len(self.parts[part]), size, shuffled=shuffled)

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
        rows = None if order is None else permutation(len(own), order).to(self.device)
        for span in spans(len(own), size, shuffled=order is not None, share=share):
            picked = span if rows is None else rows[span]
            targets = {task: target[picked] for task, target in own.targets.items()}
            yield (Batch(own.inputs[picked], targets),)

    def close(self) -> None:
        """Nothing runs between steps."""
