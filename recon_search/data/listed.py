"""The samples of a part that files list: images read one by one, labels in memory or in files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from PIL.Image import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from recon_search.data.array_files import Stored, read_label
from recon_search.data.turning import turn_of
from recon_search.tasks.task import PixelTask


class Pictures(Protocol):
    """The images of all samples."""

    def read(self, row: int) -> Image | Tensor:
        """Decode one.

        Raises:
            DataError: it cannot be decoded.
        """


@dataclass(frozen=True)
class ListedSamples:
    """One part.

    Attributes:
        pictures: of all parts.
        rows: of this part, by their place among all.
        labels: by task, the targets of this part, (N, ...); not of tasks of pixels.
        files: what holds those of all parts.
        dense: the tasks of pixels.
    """

    pictures: Pictures
    rows: Sequence[int]
    labels: Mapping[str, Tensor]
    files: Mapping[str, Sequence[Path | Stored | None]] = field(default_factory=dict)
    dense: Sequence[PixelTask] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Image | Tensor, dict[str, Tensor]]:
        image, targets = self.pictures.read(self.rows[index]), self.targets(index)
        height, width = functional.get_size(image)
        for task in self.dense:
            source = self.files[task.name][self.rows[index]]
            if source is not None:
                own = read_label(task, source, (height, width), turn_of(image))
                targets[task.name] = own
        return image, targets

    def targets(self, index: int) -> dict[str, Tensor]:
        """Return the targets of a sample without its image, but for those of its pixels."""
        return {task: own[index] for task, own in self.labels.items()}
