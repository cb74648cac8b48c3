"""Samples of a `TaskData`, made ready and checked: what runs in the processes of a loader."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import default_collate
from torchvision.transforms.v2 import functional
from torchvision.tv_tensors import TVTensor

from recon_search.data import dense_transforms
from recon_search.data.augmentation import Augmentation
from recon_search.data.source import PARTS, PartName
from recon_search.data.task_data import TaskData
from recon_search.data.transforms import Preparation
from recon_search.data.turning import turn_label, turn_needed
from recon_search.errors import DataError, ReconSearchError, in_one_line, nearest
from recon_search.tasks.binary import Binary
from recon_search.tasks.classes import IGNORED, Classes
from recon_search.tasks.labels import Labels
from recon_search.tasks.segments import Segments
from recon_search.tasks.task import CellTask, PixelTask, Task


class Key(NamedTuple):
    """A sample: where it is, and (seed, epoch) of its augmentation; None changes nothing.

    Of tasks with data of their own a third number counts how often the epoch had it before.
    """

    part: PartName
    row: int
    order: tuple[int, ...] | None = None


class Fault(NamedTuple):
    """What went wrong in a loader's process, in one line; an exception would come with many."""

    text: str


Loaded = tuple[Tensor, dict[str, Tensor]]
"""Images (B, C, H, W) and targets (B, ...) by task."""


@dataclass(frozen=True)
class Reader:
    """Reads samples.

    Attributes:
        data: tasks and samples.
        preparation: of every image.
        augmentation: of training images; None for none.
        apart: whether tasks have data of their own: a sample then has targets of its task alone.
    """

    data: TaskData
    preparation: Preparation
    augmentation: Augmentation | None
    apart: bool = False

    def __getitems__(self, keys: Sequence[Key]) -> Loaded | Fault:
        """Read a batch, of samples of the same tasks; torch's loader calls this.

        In a process of its own `default_collate` stacks in memory that this and that one share.
        """
        try:  # of a share without samples, as of any other
            samples = [self.sample(key) for key in keys or [Key("train", 0)]]
            images = default_collate([image for image, _ in samples])
        except DataError as error:
            return Fault(str(error))
        n, names = len(keys), samples[0][1]
        targets = {name: default_collate([own[name] for _, own in samples])[:n] for name in names}
        return images[:n], targets

    def sample(self, key: Key) -> Loaded:
        """Read a sample: an image (C, H, W), and the target of every task that it is of.

        Raises:
            DataError: it cannot be read, or is none; names it.
        """
        image, targets = self.open(key.part, key.row)
        try:
            height, width = functional.get_size(image)
            own = [self._tasks[name] for name in targets]
            targets = dense_transforms.lay(own, targets, (height, width))
            change = None if key.order is None else self.augmentation
            if change is None or not change.config.crops:
                image = self.preparation.fit(image)
                targets = {
                    name: self.preparation.bring(own) if isinstance(own, TVTensor) else own
                    for name, own in targets.items()
                }
            if change is not None and key.order is not None:
                image, moved = change(image, targets, (*key.order, key.row))
                targets = dict(moved)
            return image, dense_transforms.lift(targets)
        except Exception as error:  # of files, of decoders, of a data set of the user's own
            raise fault(self.data, key.part, key.row, error) from None

    def open(self, part: PartName, index: int) -> tuple[Any, dict[str, Tensor]]:
        """Decode a sample's image and settle its targets.

        Raises:
            DataError: see `sample`.
        """
        try:
            return self._open(part, index)
        except Exception as error:  # of files, of decoders, of a data set of the user's own
            raise fault(self.data, part, index, error) from None

    def find_complete(self) -> frozenset[str]:
        """Return the tasks that have every label, where all parts tell targets without images.

        Raises:
            DataError: a target is of no use; names its sample.
        """
        parts = self.data.parts
        if not all(hasattr(samples, "targets") for samples in parts.values()):
            return frozenset()
        complete = set(self._missing)
        for part in PARTS:
            samples: Any = parts[part]
            for index in range(len(samples)):
                try:
                    found = self.settle(samples.targets(index))
                except Exception as error:
                    raise fault(self.data, part, index, error) from None
                complete -= {n for n in found.keys() & complete if self._lacks(n, found[n])}
        return frozenset(complete)

    def _lacks(self, name: str, target: Tensor) -> bool:
        """Whether a label of a sample is missing."""
        missing = self._missing[name]
        if missing.is_floating_point() and missing.isnan().all():
            return bool(target.isnan().any())
        return bool((target == missing).any())

    def _open(self, part: PartName, index: int) -> tuple[Any, dict[str, Tensor]]:
        found = self.data.parts[part][index]
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise DataError(
                "A sample must be a pair (image, targets by task), got "
                f"{type(found).__name__}{f' of {len(found)}' if hasattr(found, '__len__') else ''}."
                " Return both."
            )
        given, targets = found
        image = self.preparation.decode(given)
        height, width = functional.get_size(image)
        settled = self.settle(targets, (height, width))
        if (turn := turn_needed(given)) is not None:
            for name, task in self._dense.items():
                settled[name] = turn_label(task, settled[name], turn)
        return image, settled

    def settle(self, targets: Any, size: tuple[int, int] = (1, 1)) -> dict[str, Tensor]:
        """Return the target of every task, those that are missing too; if apart, of those given.

        Args:
            targets: by task.
            size: (H, W) of the image, for labels of pixels that are missing.

        Raises:
            DataError: a task is unknown, or a target is of no use to it.
        """
        if not isinstance(targets, Mapping):
            raise DataError(
                f"Targets must be a mapping by task name, got {type(targets).__name__}. Return a "
                "dict."
            )
        if unknown := [name for name in targets if name not in self._tasks]:
            raise DataError(
                f"Targets must be of the tasks {', '.join(self._tasks)}, got one for "
                f"'{unknown[0]}'.{nearest(str(unknown[0]), self._tasks)}"
            )
        return {
            name: self._dense[name].blank(size)
            if name in self._dense and targets.get(name) is None
            else self._settle(task, targets.get(name))
            for name, task in self._tasks.items()
            if name in targets or not self.apart
        }

    @cached_property
    def _tasks(self) -> dict[str, Task]:
        return {task.name: task for task in self.data.tasks}

    @cached_property
    def _dense(self) -> dict[str, PixelTask]:
        """Tasks of pixels; looked for once, since whether a protocol is met is slow to tell."""
        return {name: task for name, task in self._tasks.items() if isinstance(task, PixelTask)}

    @cached_property
    def _missing(self) -> dict[str, Tensor]:
        """The target of a sample without a label, by task; of kinds of one's own if they say it."""
        return {
            name: task.target(None)
            for name, task in self._tasks.items()
            if isinstance(task, CellTask)
        }

    @cached_property
    def _most(self) -> dict[str, int | None]:
        return {name: _most(task) for name, task in self._tasks.items()}

    def _settle(self, task: Task, value: Any) -> Tensor:
        missing = self._missing.get(task.name)
        if value is None:
            if missing is None:
                raise DataError(
                    f"Task '{task.name}' must have a target in every sample, for its kind does not "
                    "say by target(None) what stands for no label. Give one."
                )
            return missing
        most = self._most.get(task.name)
        is_usual = most is not None and type(value) is int and 0 <= value <= most
        if is_usual and missing is not None and missing.ndim == 0:
            return _label(value)  # without the detours of what follows
        try:
            target = torch.as_tensor(value)
        except Exception:
            raise DataError(_refusal(task, "a number or a tensor", type(value).__name__)) from None
        if isinstance(task, Segments):
            known = target[target != IGNORED]
            if target.is_floating_point() or ((known < 0) | (known >= task.n_classes)).any():
                found = (
                    target.dtype
                    if target.is_floating_point()
                    else f"{int(known.min())} to {int(known.max())}"
                )
                raise DataError(
                    _refusal(task, f"of whole numbers from 0 to {task.n_classes - 1}", found)
                )
        if missing is None:
            return target
        if target.ndim == 0 and missing.numel() == 1:
            target = target.reshape(missing.shape)
        if target.shape != missing.shape:
            wanted = f"of shape {tuple(missing.shape)}" if missing.ndim else "a single number"
            raise DataError(_refusal(task, wanted, f"shape {tuple(target.shape)}"))
        if not missing.is_floating_point() and target.is_floating_point():
            raise DataError(_refusal(task, "of whole numbers", value))
        target = target.to(missing.dtype)
        if target.is_floating_point() and target.isinf().any():
            raise DataError(_refusal(task, "finite, or nan for no label", value))
        if most is not None and not ((target == missing) | (target >= 0) & (target <= most)).all():
            raise DataError(_refusal(task, f"from 0 to {most}", value))
        return target


def fault(data: TaskData, part: PartName, index: int, error: Exception) -> DataError:
    """Return an error that names a sample and says in one line what is wrong with it."""
    where = data.name(part, index)
    if not isinstance(error, ReconSearchError):
        return DataError(
            f"{where} must be readable, got {in_one_line(error)}. Replace or remove it."
        )
    text = " ".join(str(error).split())
    return DataError(text if where in text else f"{where}: {text}")


@functools.lru_cache(maxsize=4096)
def _label(value: int) -> Tensor:
    return torch.tensor(value)


def _most(task: Task) -> int | None:
    """The largest target of a kind that is known to have one."""
    if isinstance(task, Classes):
        return task.n_classes - 1
    return 1 if isinstance(task, Binary | Labels) else None


def _refusal(task: Task, wanted: str, found: Any) -> str:
    return (
        f"The target of task '{task.name}' must be {wanted}, got {found}. Correct it, or give None "
        "for no label."
    )
