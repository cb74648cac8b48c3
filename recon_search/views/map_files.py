"""Maps that a model predicted, as files: PNG of classes, NPY of numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image
from torch import Tensor

from recon_search import artefact
from recon_search.data.gallery import Picture
from recon_search.disk import in_one_line
from recon_search.errors import FileError
from recon_search.tasks.segments import Segments
from recon_search.tasks.task import Task
from recon_search.views.maps import paint, palette

BYTE, WORD = 2**8 - 1, 2**16 - 1
"""The values of pixels of unknown class in PNG files of 8 and of 16 bits."""


class MapFiles:
    """Writes maps into a folder for each task, named like their images.

    Args:
        folder: of all.
        place: where they stand until all are written.
        pictures: all of which maps may be written. What their paths differ in is kept.
        is_painted: whether a picture to look at is written beside each map of numbers.
    """

    def __init__(
        self, folder: Path, place: Path, pictures: Sequence[Picture], *, is_painted: bool
    ) -> None:
        self.folder, self._place, self._is_painted = folder, place, is_painted
        self._names = _name(pictures)

    def write(self, task: Task, pictures: Sequence[Picture], maps: Sequence[Tensor]) -> list[Path]:
        """Write what a task says of some images, and return where the files will be.

        Classes (whole numbers, (H, W)) are the values of a PNG file: up to 255 of 8 bits, with
        colours, else of 16 bits; unknown is the largest value. Numbers are NPY, float32.
        """
        below = Path(_plain(task.name))
        return [
            self.folder / self._write(task, found, below / self._names[picture.path])
            for picture, found in zip(pictures, maps, strict=True)
        ]

    def move(self) -> None:
        """Bring what is written to its folder; files of the same names are replaced.

        Raises:
            FileError: one of these is an image that was read.
        """
        read = {os.path.realpath(path) for path in self._names}
        for path in self._place.rglob("*"):
            place = self.folder / path.relative_to(self._place)
            if os.path.realpath(place) in read:
                raise FileError(
                    f"--maps must not replace images that are read, got {self.folder} for "
                    f"{in_one_line(place)}. Choose another folder."
                )
        artefact.bring(self._place, self.folder)

    def _write(self, task: Task, found: Tensor, stem: Path) -> Path:
        if found.ndim == 2 and not found.is_floating_point():
            path = _beside(stem, ".png")
            _save(_picture_of(task, found), self._place / path)
            return path
        path = _beside(stem, ".npy")
        with artefact.atomic(self._place / path) as temporary:
            np.save(temporary, found.numpy(), allow_pickle=False)
        if self._is_painted:
            _save(Image.fromarray(paint(task, found)), self._place / _beside(stem, ".png"))
        return path


@contextmanager
def map_files(
    folder: Path, pictures: Sequence[Picture], *, is_painted: bool = False
) -> Iterator[MapFiles]:
    """Yield what writes maps; they are in their folder once the block has ended well."""
    with artefact.folder_beside(folder) as place:
        below = place / Path(os.path.abspath(folder)).name
        below.mkdir(exist_ok=True)
        found = MapFiles(folder, below, pictures, is_painted=is_painted)
        yield found
        found.move()


def _picture_of(task: Task, found: Tensor) -> Image.Image:
    """Return classes as a picture whose values they are."""
    n = task.n_classes if isinstance(task, Segments) else int(found.max()) + 1
    unknown = BYTE if n <= BYTE else WORD
    values = np.where(found.numpy() < 0, unknown, found.numpy())
    if unknown == WORD:
        return Image.fromarray(values.astype(np.uint16))
    height, width = values.shape
    picture = Image.frombytes("P", (width, height), values.astype(np.uint8).tobytes())
    picture.putpalette(palette(n).tobytes() + bytes(3 * (BYTE + 1 - n)))
    return picture


def _save(picture: Image.Image, path: Path) -> None:
    with artefact.atomic(path) as temporary:
        picture.save(temporary, format="PNG")


def _beside(stem: Path, ending: str) -> Path:
    return stem.with_name(stem.name + ending)


def _plain(task: str) -> str:
    """What to call a task's folder: its name, as in a URL where a path would read it otherwise."""
    found = quote(task, safe=" +")
    return found.replace(".", "%2E") if not found.strip(". ") else found


def _name(pictures: Sequence[Picture]) -> Mapping[Path, Path]:
    """Name each file below the folder of all, without endings if these are not needed."""
    if not pictures:
        return {}
    whole = {each.path: Path(os.path.abspath(each.path)) for each in pictures}
    base = os.path.commonpath([path.parent for path in whole.values()])
    names = {path: own.relative_to(base) for path, own in whole.items()}
    plain = {path: own.with_suffix("") for path, own in names.items()}
    return plain if len(set(plain.values())) == len(plain) else names
