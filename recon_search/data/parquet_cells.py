"""Cells of Parquet files that hold images or labels of their pixels: bytes of files, or arrays."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from recon_search.data.array_files import as_image
from recon_search.data.pictures import read_picture, read_size
from recon_search.data.source import PartName
from recon_search.data.tables import number_rows
from recon_search.errors import DataError


@dataclass(frozen=True)
class Cells:
    """A column of images or labels of pixels, held in memory as it is stored.

    Attributes:
        name: of the column.
        columns: of each file, an arrow array.
        starts: the first row of each file.
        places: of each row, for errors.
        shape: of arrays that are stored as flat lists, where the files say it.
    """

    name: str
    columns: Sequence[Any]
    starts: NDArray[np.int64]
    places: list[str]
    shape: tuple[int, ...] | None = None

    def content(self, row: int) -> bytes | NDArray[Any]:
        """Return the bytes of a file, or the array.

        Raises:
            DataError: the cell is empty, or holds neither.
        """
        cell = self._cell(row)
        shape = getattr(cell.type, "shape", None) or self.shape  # of a tensor of arrow's own
        cell = getattr(cell, "value", cell)  # what an extension type stores
        if hasattr(cell, "values") and not hasattr(cell, "keys"):  # a list, not a struct
            return _array(cell.values, shape, self.places[row])
        value = cell.as_py()
        if isinstance(value, dict):
            value = value.get("bytes")
        if not isinstance(value, bytes):
            raise DataError(
                f"{self.places[row]}: a cell must hold the bytes of an image or its pixels, found "
                f"{'none' if value is None else type(value).__name__}. Fill it; paths are for "
                "'table' data."
            )
        return value

    def array(self, row: int) -> NDArray[Any]:
        """Return the numbers of a cell that holds nested lists.

        Raises:
            DataError: it holds none.
        """
        found = self.content(row)
        if isinstance(found, bytes):
            raise DataError(
                f"{self.places[row]}: column '{self.name}' must hold nested lists of numbers, "
                f"found bytes. Write it again."
            )
        return found

    def is_empty(self, row: int) -> bool:
        """Whether a cell holds nothing."""
        value = self._cell(row)
        if not value.is_valid:
            return True
        return hasattr(value, "keys") and not value["bytes"].is_valid

    def _cell(self, row: int) -> Any:
        file = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.columns[file][row - int(self.starts[file])]


@dataclass(frozen=True)
class Pictures:
    """The images of all samples.

    Attributes:
        cells: what holds them.
        channels: 1 or 3, of pictures.
    """

    cells: Cells
    channels: int

    def read(self, row: int) -> Image | Tensor:
        """Decode one: a picture, or of fractions a tensor, float32 (C, H, W)."""
        content, place = self.cells.content(row), self.cells.places[row]
        if isinstance(content, bytes):
            return read_picture(content, place, self.channels)
        if content.dtype.kind == "f":
            return as_image(content, place)
        return read_picture(_levels(content, place), place, self.channels)

    def size(self, row: int) -> tuple[int, int]:
        """Return (H, W) of one; pictures are not decoded."""
        content, place = self.cells.content(row), self.cells.places[row]
        if isinstance(content, bytes):
            return read_size(content, place)
        if content.dtype.kind == "f":
            height, width = as_image(content, place).shape[1:]
        else:
            height, width = (*_levels(content, place).shape[:2], 1)[:2]  # reading refuses a row
        return int(height), int(width)


@dataclass(frozen=True)
class Label:
    """A cell with the label of an image's pixels."""

    cells: Cells
    row: int

    def __str__(self) -> str:
        return f"column '{self.cells.name}'"

    def content(self) -> bytes | NDArray[Any]:
        """Return the bytes of a file, or the array."""
        return self.cells.content(self.row)


def join_cells(
    files: Sequence[tuple[Path, PartName | None]], read: Sequence[Any], column: str
) -> Cells:
    """Join a column of all files; rows are numbered through."""
    sizes = [one.num_rows for one in read]
    return Cells(
        column,
        [one.column(column) for one in read],
        np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64),
        [
            place
            for (path, _), n in zip(files, sizes, strict=True)
            for place in number_rows(path.name, n)
        ],
        _shape(features_of(read).get(column)),
    )


def check_cells(read: Sequence[Any], column: str, what: str, key: str) -> None:
    """Refuse a column that holds neither files nor arrays.

    Raises:
        DataError: names it, `what` it must hold, and the `key` that names another.
    """
    import pyarrow.types as types

    for one in read:
        kind = one.schema.field(column).type
        kind = getattr(kind, "storage_type", kind)
        is_struct = types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        is_list = any(
            check(kind) for check in (types.is_list, types.is_large_list, types.is_fixed_size_list)
        )
        if not (is_struct or is_list or types.is_binary(kind) or types.is_large_binary(kind)):
            raise DataError(
                f"Column '{column}' must hold {what} as bytes, as a struct with bytes, or as "
                f"nested lists of pixels, found {kind}. Name another with `{key}`."
            )


def features_of(read: Sequence[Any]) -> dict[str, Mapping[str, Any]]:
    """By column, what `datasets` says of it in the metadata of a file."""
    found: dict[str, Mapping[str, Any]] = {}
    for one in read:
        try:
            told = json.loads((one.schema.metadata or {}).get(b"huggingface", b"{}"))
            features = told["info"]["features"].items()
            found |= {name: own for name, own in features if isinstance(own, dict)}
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # none, or not as we know them
    return found


def _shape(feature: Mapping[str, Any] | None) -> tuple[int, ...] | None:
    """The shape of a column's arrays, where it is said."""
    found = (feature or {}).get("shape")
    is_shape = isinstance(found, list) and all(type(each) is int and each > 0 for each in found)
    return tuple(found) if is_shape and found else None


def _array(values: Any, shape: tuple[int, ...] | None, place: str) -> NDArray[Any]:
    """Turn nested lists into an array, a flat one by the shape that is known.

    Raises:
        DataError: they have no shape, or another.
    """
    try:
        found = _nested(values)
        if found.ndim > 1 or shape is None:
            return found
        if found.size != math.prod(shape):
            raise ValueError(f"a flat list of {found.size} for the shape {shape}")
        return found.reshape(shape)
    except ValueError as error:
        raise DataError(
            f"{place}: pixels must be nested lists of one shape, found {error}. Convert them."
        ) from None


def _levels(pixels: NDArray[Any], place: str) -> NDArray[np.uint8]:
    """Return pixels with the channels last.

    Raises:
        DataError: they are no whole numbers from 0 to 255.
    """
    if pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 255:
        numbers = pixels.dtype.kind in "iu"
        found = f"{pixels.dtype}{f' from {pixels.min()} to {pixels.max()}' if numbers else ''}"
        raise DataError(
            f"{place}: pixels must be nested lists of one shape of whole numbers from 0 to 255, or "
            f"of fractions, found {found}. Convert them."
        )
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3, 4):
        pixels = np.moveaxis(pixels, 0, 2)
    return pixels.astype(np.uint8)


def _nested(values: Any) -> NDArray[Any]:
    import pyarrow.compute as compute

    if values is None or not len(values) or values.null_count:
        raise ValueError("an empty list or entry")
    if not hasattr(values, "flatten") or not hasattr(values.type, "value_type"):
        return values.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
    lengths = compute.min_max(compute.list_value_length(values)).as_py()
    if lengths["min"] != lengths["max"]:
        raise ValueError(f"lists of lengths from {lengths['min']} to {lengths['max']}")
    inner = _nested(values.flatten())
    return inner.reshape(len(values), lengths["max"], *inner.shape[1:])
