"""Arrays in files: `.npy`, nothing unpickled, and pictures as they are stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from recon_search.data.pictures import read_picture
from recon_search.disk import special
from recon_search.errors import DataError, LabelError, in_one_line
from recon_search.tasks.task import PixelTask


def read_array(path: Path) -> NDArray[Any]:
    """Read an array; of a picture its stored values: of a palette the indices, 16 bits whole.

    Raises:
        DataError: it cannot be read, or is no array; names the file.
    """
    if (kind := special(path)) is not None:
        raise DataError(f"{path} must hold an array, it is {kind}. Remove it.")
    try:
        if path.suffix.lower() == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        with Image.open(path) as picture:
            return np.asarray(picture)
    except Exception as error:  # of files, of numpy, of decoders
        raise DataError(
            f"{path} must hold an array ({'npy' if path.suffix == '.npy' else 'a picture'}), it "
            f"does not load ({in_one_line(error)}). Replace it."
        ) from None


def read_label(task: PixelTask, path: Path) -> Tensor:
    """Read the label of a sample.

    Raises:
        DataError: it cannot be read, or is of no use to the task; names the file.
    """
    try:
        return task.target(read_array(path))
    except LabelError as error:
        raise LabelError(f"{path}: {error}") from None


@dataclass
class Labels:
    """The labels of a task, read one after another where somebody looks at them.

    Attributes:
        files: what holds each label, and what errors call it.
        place: of what was read last; once all are read, of all.
    """

    files: Sequence[tuple[Path, str]]
    place: str

    def __iter__(self) -> Iterator[NDArray[Any]]:
        whole = self.place
        for path, place in self.files:
            self.place = place
            yield read_array(path)
        self.place = whole


def read_image(path: Path, channels: int) -> Tensor:
    """Read an image as a tensor (C, H, W): uint8, or float32 of fractions, taken as they are.

    Args:
        path: of an array (H, W), (H, W, C) or (C, H, W) with C of 1 or 3, or of a picture.
        channels: of pictures, which are converted.

    Raises:
        DataError: it cannot be read, or is no image; names the file.
    """
    if path.suffix.lower() != ".npy":
        pixels = np.asarray(read_picture(path, str(path), channels))
        return _channels_first(pixels, path)
    found = _channels_first(read_array(path), path)
    if found.is_floating_point():
        if not found.isfinite().all():
            raise DataError(
                f"{path} must hold finite numbers, it holds others. Replace them, or leave the "
                "sample out."
            )
        return found.float()
    if not 0 <= int(found.min()) <= int(found.max()) <= 255:
        raise DataError(
            f"{path} must hold levels from 0 to 255, or fractions, found {int(found.min())} to "
            f"{int(found.max())}. Convert it."
        )
    return found.to(torch.uint8)


def _channels_first(pixels: NDArray[Any], path: Path) -> Tensor:
    shape = pixels.shape
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif pixels.ndim == 3 and shape[2] in (1, 3):
        pixels = np.moveaxis(pixels, 2, 0)
    if pixels.ndim != 3 or len(pixels) not in (1, 3) or not pixels.size:
        raise DataError(
            f"{path} must hold an image, (H, W), (H, W, 3) or (3, H, W), found the shape {shape}. "
            "Convert it."
        )
    if pixels.dtype.kind not in "biuf":
        raise DataError(f"{path} must hold numbers, found {pixels.dtype}. Convert it.")
    if pixels.dtype.kind in "biu":
        pixels = pixels.astype(np.int64 if pixels.dtype != np.uint8 else np.uint8)
    else:
        pixels = pixels.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(pixels))
