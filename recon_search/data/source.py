"""What the rest of the tool asks of data: a schema, parts, and steps of batches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from recon_search.tasks.task import Task

PartName = Literal["train", "validation", "test"]
PARTS: tuple[PartName, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Batch:
    """Inputs and what is known of them.

    Attributes:
        inputs: (B, C, H, W), as they are stored; `Inputs.normalise` makes them ready.
        targets: by task. The tasks named are those of this input.
    """

    inputs: Tensor
    targets: Mapping[str, Tensor]


Say = Callable[[str], None]
"""Takes one sentence for a person."""


def silent(text: str) -> None:
    """Say nothing."""


Step = tuple[Batch, ...]
"""The batches of one step: one where all tasks share their input, else one for each task."""


@dataclass(frozen=True)
class Schema:
    """What is known of data without reading a pixel.

    Attributes:
        tasks: in order.
        shape: of one input, (C, H, W).
        complete: names of the tasks that have every label in every part, of those apart in all of
            their own samples.
        fingerprint: of the files, whatever their folder is called; empty where the recipe says all.
        apart: whether each task has inputs of its own, and so a batch of its own in every step.
    """

    tasks: tuple[Task, ...]
    shape: tuple[int, int, int]
    complete: frozenset[str]
    fingerprint: str = ""
    apart: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(task.name for task in self.tasks)

    def select(self, names: tuple[str, ...]) -> tuple[Task, ...]:
        """Return the tasks of these names, in this order."""
        known = {task.name: task for task in self.tasks}
        return tuple(known[name] for name in names)


@dataclass(frozen=True)
class Inputs:
    """How inputs are made ready; saved with the model, whose users must do the same.

    Attributes:
        mean: of each channel, after scaling.
        std: of each channel, after scaling.
        scale: what stored values are divided by.
        fitting: how images are brought to their size, as `transforms.prepare` reads it; empty where
            they have it.
    """

    mean: Tensor
    std: Tensor
    scale: float = 255.0
    fitting: Mapping[str, Any] = field(default_factory=dict)

    def normalise(self, inputs: Tensor) -> Tensor:
        """Return float32 inputs (B, C, H, W), scaled, with mean 0 and deviation 1 in training."""
        mean, std = (each.to(inputs.device)[:, None, None] for each in (self.mean, self.std))
        ready = inputs.to(torch.float32, copy=True)
        return ready.div_(self.scale).sub_(mean).div_(std)


class Source(Protocol):
    """Data of several tasks, cut into parts."""

    @property
    def schema(self) -> Schema:
        """What it holds."""

    def open(self, device: torch.device, say: Say = silent) -> Feed:
        """Make it ready to be read in steps on a device; `say` is told what that takes."""


class Feed(Protocol):
    """Data in steps, on a device.

    The order of shuffled samples is a function of seed and epoch alone; of tasks with data of their
    own each has one of its own, whichever others there are. The shares of several processes make up
    the batch that one process would get.
    """

    @property
    def schema(self) -> Schema:
        """What it holds."""

    @property
    def inputs(self) -> Inputs:
        """How inputs are made ready: statistics of the training part, taken once."""

    @property
    def device(self) -> torch.device:
        """Where batches are."""

    def select(self, tasks: Collection[str]) -> Feed:
        """The feed as some of its tasks see it: without inputs that others alone learn from."""

    def lengths(self, part: PartName) -> tuple[int, ...]:
        """Number of inputs in a part: one where all tasks share them, else one for each task."""

    def n_steps(self, part: PartName, size: int, *, shuffled: bool) -> int:
        """Number of steps that `steps` yields."""

    def steps(
        self,
        part: PartName,
        size: int,
        order: tuple[int, int] | None = None,
        *,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[Step]:
        """Cut a part into steps.

        Args:
            part: its name.
            size: inputs in a batch, over all processes.
            order: (seed, epoch) shuffles, for training; the last, smaller batch is then left out,
                unless it is the only one. Of tasks with data of their own the longest gives the
                number of steps, and the others begin anew, shuffled anew, as often as they must.
                None keeps the order, and every input; a task that is through has no further batch.
            share: (r, n) cuts the r-th of n equal parts out of every batch.
        """

    def close(self) -> None:
        """End what runs between steps; the next step starts it anew."""
