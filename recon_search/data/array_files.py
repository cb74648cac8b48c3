"""Arrays in files and cells: `.npy`, nothing unpickled, and pictures as they are stored."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

from recon_search.data.pictures import read_picture
from recon_search.data.turning import Turn, orientation_of, turn_label, turn_of, turn_upright
from recon_search.disk import special
from recon_search.errors import DataError, in_one_line
from recon_search.tasks.task import PixelTask

Read = Callable[[str, Path], NDArray[Any]]
"""Makes the label of a sample of what a file holds, given the name of the task."""

NPY = b"\x93NUMPY"
"""What the content of an `.npy` file begins with."""


class Stored(Protocol):
    """What holds an array and is no file; errors call it by its text."""

    def content(self) -> bytes | NDArray[Any]:
        """Return the content of a file, or the array.

        Raises:
            DataError: it holds neither.
        """


def read_array(source: Path | Stored) -> NDArray[Any]:
    """Read an array; of a picture its stored values: of a palette the indices, 16 bits whole.

    Raises:
        DataError: it cannot be read, or is no array; names it.
    """
    return _read(source)[0]


def _read(source: Path | Stored) -> tuple[NDArray[Any], bool]:
    """Read an array, and whether it is known to be upright: pictures of 16 bits may say it, too."""
    if isinstance(source, Path) and (odd := special(source)) is not None:
        raise DataError(f"{source} must hold an array, it is {odd}. Remove it.")
    kind = "npy" if isinstance(source, Path) and source.suffix.lower() == ".npy" else "a picture"
    try:
        content = source.read_bytes() if isinstance(source, Path) else source.content()
        if isinstance(content, np.ndarray):
            return content, False
        if kind == "npy" or content.startswith(NPY):
            return np.asarray(np.load(io.BytesIO(content), allow_pickle=False)), False
        with warnings.catch_warnings(), Image.open(io.BytesIO(content)) as picture:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            orientation = orientation_of(picture)
            return np.asarray(turn_upright(picture)), orientation is not None
    except DataError:
        raise
    except Exception as error:  # of files, of numpy, of decoders
        reason = in_one_line(error)
        if isinstance(error, UnidentifiedImageError):  # which names an object in memory
            reason = "Pillow knows no such picture" if content else "it is empty"
        if "pickle" in reason:  # numpy says how it could be loaded all the same
            reason = "it holds Python objects, which are never unpickled"
        raise DataError(
            f"{source} must hold an array ({kind}), it does not load ({reason}). Replace it."
        ) from None


def read_label(
    task: PixelTask,
    source: Path | Stored,
    size: tuple[int, ...],
    turn: Turn | None = None,
    read: Read | None = None,
    *,
    is_fitted: bool = False,
) -> Tensor:
    """Read the label of a sample.

    A picture whose EXIF data say how it lies is turned as they say, anything else as its image was
    (see `turn_label`).

    Args:
        task: of the label.
        source: what holds it.
        size: (H, W) of its image.
        turn: of its image.
        read: makes it of what a file holds; None takes it as it is stored.
        is_fitted: a label of another size is brought to its image's, by the nearest pixel.

    Raises:
        DataError: it cannot be read, is of no use to the task, or has another size; names it.
    """
    try:
        if read is None:
            array, is_upright = _read(source)
        else:
            assert isinstance(source, Path)
            array, is_upright = read(task.name, source), False
        found = task.target(array)
        upright = found if is_upright else turn_label(task, found, turn)
    except DataError as error:
        text = str(error)
        raise type(error)(text if str(source) in text else f"{source}: {text}") from None
    if tuple(upright.shape[-2:]) != size:
        if is_fitted:
            return _fit(upright, size)
        stored = "" if turn is None else f", or that in which it is stored, {turn.size}"
        raise DataError(
            f"{source} must have the size of its image, {size}{stored}, found "
            f"{tuple(found.shape[-2:])}. Replace it."
        )
    return upright


@dataclass
class Labels:
    """The labels of a task, read one after another where somebody looks at them.

    Attributes:
        files: what holds each label, and what errors call it.
        place: of what was read last; once all are read, of all.
        task: its name.
        read: as `read_label` takes it.
    """

    files: Sequence[tuple[Path | Stored, str]]
    place: str
    task: str = ""
    read: Read | None = None

    def __iter__(self) -> Iterator[NDArray[Any]]:
        whole = self.place
        for path, place in self.files:
            self.place = place
            if self.read is None or not isinstance(path, Path):
                yield read_array(path)
            else:
                yield self.read(self.task, path)
        self.place = whole


def _fit(target: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bring a label (H, W) or (n, H, W) to a size (H, W)."""
    planes = target.reshape(1, -1, *target.shape[-2:])  # doubles hold every label exactly
    found = functional.interpolate(planes.double(), size, mode="nearest-exact")
    return found.to(target.dtype).reshape(*target.shape[:-2], *size)


def read_image(path: Path, channels: int) -> tuple[Tensor, Turn | None]:
    """Read an image as a tensor (C, H, W): uint8, or float32 of fractions, taken as they are.

    Args:
        path: of an array (H, W), (H, W, C) or (C, H, W) with C of 1 or 3, or of a picture.
        channels: of pictures, which are converted.

    Returns:
        The image, and how it was turned upright.

    Raises:
        DataError: it cannot be read, or is no image; names the file.
    """
    if path.suffix.lower() == ".npy":
        return as_image(read_array(path), str(path)), None
    picture = read_picture(path, str(path), channels)
    return as_image(np.asarray(picture), str(path)), turn_of(picture)


def as_image(pixels: NDArray[Any], name: str) -> Tensor:
    """Turn an array into an image (see `read_image`).

    Raises:
        DataError: it is none; names it.
    """
    found = _channels_first(pixels, name)
    if found.is_floating_point():
        if not found.isfinite().all():
            raise DataError(
                f"{name} must hold finite numbers, it holds others. Replace them, or leave the "
                "sample out."
            )
        return found.float()
    if not 0 <= int(found.min()) <= int(found.max()) <= 255:
        raise DataError(
            f"{name} must hold levels from 0 to 255, or fractions, found {int(found.min())} to "
            f"{int(found.max())}. Convert it."
        )
    return found.to(torch.uint8)


def _channels_first(pixels: NDArray[Any], name: str) -> Tensor:
    shape = pixels.shape
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif pixels.ndim == 3 and shape[2] in (1, 3):
        pixels = np.moveaxis(pixels, 2, 0)
    if pixels.ndim != 3 or len(pixels) not in (1, 3) or not pixels.size:
        raise DataError(
            f"{name} must hold an image, (H, W), (H, W, 3) or (3, H, W), found the shape {shape}. "
            "Convert it."
        )
    if pixels.dtype.kind not in "biuf":
        raise DataError(f"{name} must hold numbers, found {pixels.dtype}. Convert it.")
    if pixels.dtype.kind in "biu":
        pixels = pixels.astype(np.int64 if pixels.dtype != np.uint8 else np.uint8)
    else:
        pixels = pixels.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(pixels))
