"""What readers of files, and factories of one's own, return: tasks, and samples cut into parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from recon_search.data.source import PartName
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
        image_size: (H, W) that images come in; None where they differ or nobody knows. Tensors of
            one size need none. `data.image_size` of the recipe goes first.
        fingerprint: changes when the data changes. Results are kept under it, so without one they
            are kept under what a recipe says (a factory's import path and arguments), or, of data
            that is given from Python, under a digest of every sample.
        describe: names the file and the row of a sample for error messages, given its part and
            index.
    """

    tasks: Sequence[Task]
    parts: Mapping[PartName, Samples]
    image_size: tuple[int, int] | None = None
    fingerprint: str = ""
    describe: Callable[[PartName, int], str] | None = field(default=None, compare=False)

    def name(self, part: PartName, index: int) -> str:
        """Name a sample for a person."""
        if self.describe is None:
            return f"sample {index} of the {part} part"
        return self.describe(part, index)
