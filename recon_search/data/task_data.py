"""What readers of files, and factories of one's own, return: tasks, and samples cut into parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from recon_search.data.source import PARTS, PartName
from recon_search.errors import DataError, nearest
from recon_search.tasks.task import Task

if TYPE_CHECKING:
    from PIL.Image import Image

    Picture = Image | Tensor

Target = Tensor | float | int | None
"""What a task's `loss` takes for one sample; None, like a missing key, is no label."""


class Samples(Protocol):
    """A part: a map-style data set, as `torch.utils.data.Dataset` is.

    `[i]` is a pair: an image, and by task name the target. Images are PIL images, or tensors
    (C, H, W): uint8 of any size, or float32, which is taken as it is, without scaling; all of one
    kind. It is called in several processes at once and must depend on `i` alone: what is random
    comes from `[data.augment]`.

    A method `targets(i)`, if there is one, returns the targets without the image.
    """

    def __len__(self) -> int:
        """Number of samples."""

    def __getitem__(self, index: int) -> tuple[Picture, Mapping[str, Target]]:
        """Return the image and the targets of a sample."""


@dataclass(frozen=True)
class TaskData:
    """Tasks and their samples.

    Attributes:
        tasks: in order, each name once.
        parts: `train`, `validation` and `test`.
        image_size: (H, W) to which images are brought; `data.image_size` of a recipe goes first.
            Tensors of one size need neither.
        fingerprint: changes when the data changes. Results are kept under it, so without one they
            are kept under what a recipe says (a factory's import path and arguments), or, of data
            that is given from Python, under a digest of every sample.
        describe: names the file and the row of a sample for error messages, given its part and
            index.
    """

    tasks: Sequence[Task]
    parts: Mapping[PartName, Samples] | Mapping[str, Samples]
    image_size: tuple[int, int] | None = None
    fingerprint: str = ""
    describe: Callable[[PartName, int], str] | None = field(default=None, compare=False)

    def name(self, part: PartName, index: int) -> str:
        """Name a sample for a person."""
        if self.describe is None:
            return f"sample {index} of the {part} part"
        return self.describe(part, index)

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
            if not (hasattr(samples, "__len__") and hasattr(samples, "__getitem__")):
                raise DataError(
                    f"The {part} part must have a length and be read by index, got "
                    f"{type(samples).__name__}. Write __len__ and __getitem__."
                )
            if len(samples) == 0:
                raise DataError(f"The {part} part must not be empty. Give it a sample.")
