"""Data that is whole tensors: loaded once, kept on the device, cut into batches there."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from recon_search.data.order import Lane, Laned, Pick, choose, pick
from recon_search.data.source import Batch, Inputs, PartName, Schema, Step
from recon_search.data.statistics import Statistics


@dataclass(frozen=True)
class Part:
    """Train, validation or test data.

    Attributes:
        inputs: uint8 images, (N, C, H, W).
        targets: for each task the target of every image, (N, ...); of tasks with data of their own
            that of every image of its lane.
        lanes: what steps are taken from; empty where all tasks share every image.
    """

    inputs: Tensor
    targets: Mapping[str, Tensor]
    lanes: Sequence[Lane] = ()

    def __len__(self) -> int:
        return len(self.inputs)

    def find_lanes(self) -> Sequence[Lane]:
        """What steps are taken from."""
        return self.lanes or (Lane(tuple(self.targets), range(len(self))),)

    def to(self, device: torch.device) -> Part:
        """Move everything to a device, once; batches are then cut there."""
        targets = {task: target.to(device) for task, target in self.targets.items()}
        return Part(self.inputs.to(device), targets, self.lanes)


@dataclass(frozen=True)
class ResidentFeed(Laned):
    """Steps of data that is held in tensors.

    Attributes:
        schema: what it holds.
        parts: by name, all on one device.
        known: how inputs are made ready; None takes the training part's mean and deviation.
        tasks: whose inputs are shown; None shows all.
    """

    schema: Schema
    parts: Mapping[PartName, Part]
    known: Inputs | None = None
    tasks: Collection[str] | None = None

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

    def select(self, tasks: Collection[str]) -> ResidentFeed:
        """The feed as some of its tasks see it."""
        return replace(self, tasks=tasks) if self.schema.apart else self

    def steps(
        self,
        part: PartName,
        size: int,
        order: tuple[int, int] | None = None,
        *,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[Step]:
        """Cut a part into steps (see `Feed.steps`)."""
        own = self.parts[part]
        for step in pick(self.lanes_of(part), size, order, share, self.device):
            yield tuple(_take(own, each) for each in step)

    def close(self) -> None:
        """Nothing runs between steps."""

    def lanes_of(self, part: PartName) -> Sequence[Lane]:
        """What steps are taken from."""
        lanes = self.parts[part].find_lanes()
        return lanes if self.tasks is None else choose(lanes, self.tasks)


def _take(part: Part, batch: Pick) -> Batch:
    targets = {task: part.targets[task][batch.places] for task in batch.lane.tasks}
    return Batch(part.inputs[batch.rows], targets)
