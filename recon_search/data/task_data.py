"""What readers of files, and factories of one's own, return: tasks, and samples cut into parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recon_search.data.apart import Apart, join
from recon_search.data.order import Lane
from recon_search.data.source import PARTS, PartName
from recon_search.errors import DataError, nearest
from recon_search.tasks.task import Task


@dataclass(frozen=True)
class TaskData:
    """Tasks and their samples.

    Attributes:
        tasks: in order, each name once.
        parts: `train`, `validation` and `test`. Where tasks have data of their own, each is a data
            set by task, `{"art": ..., "clipart": ...}`, whose `[i]` is an image and its target, as
            torchvision's data sets have them; a step then takes a batch of each.
        image_size: (H, W) to which images are brought; `data.image_size` of a recipe goes first.
            Tensors of one size need neither.
        fingerprint: changes when the data changes. Results are kept under it, so without one they
            are kept under what a recipe says (a factory's import path and arguments), or, of data
            that is given from Python, under a digest of every sample.
        describe: names the file and the row of a sample for error messages, given its part and
            index; of tasks with data of their own, counted over all in the order of the tasks.

    Examples:
        >>> import torch
        >>> from recon_search.tasks.classes import Classes
        >>> image = torch.zeros(3, 32, 32)
        >>> samples = [(image, {"shape": torch.tensor(0)}), (image, {"shape": torch.tensor(1)})]
        >>> parts = {"train": samples, "validation": samples, "test": samples}
        >>> data = TaskData([Classes("shape", 2)], parts)
        >>> data.check()
        >>> data.name("test", 1)
        'sample 1 of the test part'
    """

    tasks: Sequence[Task]
    parts: Mapping[Any, Any]
    image_size: tuple[int, int] | None = None
    fingerprint: str = ""
    describe: Callable[[PartName, int], str] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        names = [getattr(task, "name", "") for task in self.tasks]
        joined = {
            part: join(own, names) if isinstance(own, Mapping) else own
            for part, own in self.parts.items()
        }
        object.__setattr__(self, "parts", joined)

    @property
    def is_apart(self) -> bool:
        """Whether tasks have data of their own."""
        return any(isinstance(samples, Apart) for samples in self.parts.values())

    def lanes(self, part: PartName) -> Sequence[Lane]:
        """What the batches of a step are taken from."""
        samples = self.parts[part]
        if isinstance(samples, Apart):
            return samples.lanes
        return (Lane(tuple(task.name for task in self.tasks), range(len(samples))),)

    def name(self, part: PartName, index: int) -> str:
        """Name a sample for a person."""
        if self.describe is not None:
            return self.describe(part, index)
        samples = self.parts[part]
        if not isinstance(samples, Apart):
            return f"sample {index} of the {part} part"
        task, place = samples.find(index)
        return f"sample {place} of task '{task}' in the {part} part"

    def check(self) -> None:
        """Check what needs no sample.

        Raises:
            DataError: tasks or parts are not as they must be.
        """
        tasks = tuple(self.tasks)
        if not tasks or not all(isinstance(task, Task) for task in tasks):
            found = ", ".join(type(task).__name__ for task in tasks) or "none"
            raise DataError(f"TaskData.tasks must be recon_search.Task objects, got {found}.")
        names = [task.name for task in tasks]
        if twice := [name for name, n in Counter(names).items() if n > 1]:
            raise DataError(f"Tasks must have different names, got '{twice[0]}' twice. Rename one.")
        if unknown := [part for part in self.parts if part not in PARTS]:
            raise DataError(
                f"Parts must be named {', '.join(PARTS)}, got '{unknown[0]}'."
                f"{nearest(str(unknown[0]), PARTS)}"
            )
        for part in PARTS:
            if part not in self.parts:
                raise DataError(
                    f"Data must have the parts {', '.join(PARTS)}, got no '{part}'. Add it."
                )
            samples = self.parts[part]
            if isinstance(samples, Apart) or self.is_apart:
                _check_apart(samples, names, part)
            if not (hasattr(samples, "__len__") and hasattr(samples, "__getitem__")):
                raise DataError(
                    f"The {part} part must have a length and be read by index, got "
                    f"{type(samples).__name__}. Write __len__ and __getitem__."
                )
            if len(samples) == 0:
                raise DataError(f"The {part} part must not be empty. Give it a sample.")


def _check_apart(samples: Any, names: Sequence[str], part: str) -> None:
    """Check the data sets of a part, one a task."""
    if not isinstance(samples, Apart):
        raise DataError(
            "Where tasks have data of their own, every part must be a dict of data sets by task, "
            f"got {type(samples).__name__} for the {part} part. Give one data set a task."
        )
    if unknown := [name for name in samples.sets if name not in names]:
        raise DataError(
            f"The data sets of a part must be named after the tasks {', '.join(names)}, got "
            f"'{unknown[0]}' in the {part} part.{nearest(str(unknown[0]), names)}"
        )
    for name in names:
        if not len(samples.sets.get(name, ())):
            raise DataError(
                f"Every task must have data of its own in every part, '{name}' has none in the "
                f"{part} part. Give it a sample."
            )
