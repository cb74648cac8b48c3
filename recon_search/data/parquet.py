"""`parquet`: images in the cells of Parquet files, as the Hugging Face hub's mirrors hold them.

Labels of pixels stand in cells, too, as images do: bytes of PNG or NPY files, or nested lists, of
images with the channels first or last. What is null has no label.
"""

from __future__ import annotations

import hashlib
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

from recon_search.artefact import digest
from recon_search.data import parts
from recon_search.data.array_files import as_image
from recon_search.data.listing import Faults, Listing, assemble, check_tasks
from recon_search.data.pictures import read_picture, read_size
from recon_search.data.source import PartName
from recon_search.data.table import (
    find_root,
    options_of,
    read_cells,
    read_groups,
    read_parts,
    wanted_columns,
)
from recon_search.data.tables import Table, check_columns, import_parquet, number_rows
from recon_search.data.task_data import TaskData
from recon_search.errors import DataError, RecipeError, in_one_line
from recon_search.recipe import DataConfig, TaskConfig
from recon_search.tasks.registry import reads_pixels

IMAGE = "image"
"""The column of the images where a recipe names none."""


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


def read_parquet(config: DataConfig, tables: Mapping[str, TaskConfig]) -> TaskData:
    """Read Parquet files with images, whole, into memory.

    Args:
        config: `root`, `file` (a path or pattern below it; without it train*.parquet,
            validation*.parquet and test*.parquet there or in the folder data), `image`, and
            `split`, `ratio` and `group`.
        tables: the tasks; `target` names a column, without it the task's name does.

    Raises:
        DataError: naming file and row of what is missing, malformed or of no use.
        RecipeError: a key is missing.
    """
    config = config.model_copy(update={"image": config.image or IMAGE})
    assert config.image is not None
    check_tasks(config, tables)
    files = _find_files(config, find_root(config))
    wanted = wanted_columns(config, tables)
    read = [_read_file(path, wanted) for path, _ in files]
    _check_cells(read, config.image, "images", "data.image")
    dense = _dense_columns(tables)
    for task, column in dense.items():
        _check_cells(read, column, "labels of pixels", f"tasks.{task}.target")
    numbered = (
        number_rows(path.name, one.num_rows) for (path, _), one in zip(files, read, strict=True)
    )
    places = [place for own in numbered for place in own]
    sizes = [one.num_rows for one in read]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    features = _features(read)

    def cells_of(column: str) -> Cells:
        found = [one.column(column) for one in read]
        return Cells(column, found, starts, places, _shape(features.get(column)))

    pictures = Pictures(cells_of(config.image), config.channels)
    names = _class_names(features)
    name = files[0][0].name if len(files) == 1 else str(files[0][0].parent)
    others = [column for column in wanted if column not in (config.image, *dense.values())]
    table = Table(name, {column: _join(read, column, names) for column in others}, places)
    given: list[PartName] | None = read_parts(table, config.split)
    if given is None and files[0][1] is not None:
        given = [part for (_, part), n in zip(files, sizes, strict=True) for _ in range(n) if part]
    listing = Listing(
        name=name,
        keys=places,
        places=places,
        pictures=pictures,
        cells=read_cells(table, {task: own for task, own in tables.items() if task not in dense}),
        files={task: _labels(cells_of(column)) for task, column in dense.items()},
        given=given,
        groups=read_groups(table, config.group),
        options=options_of(tables) | _classes(tables, names),
        fingerprint=digest([[path.name, part, _digest(path)] for path, part in files]),
        image_size=_one_size(pictures),
    )
    return assemble(listing, config, tables)


def _find_files(config: DataConfig, root: Path) -> list[tuple[Path, PartName | None]]:
    """Find the files, and the part of each where its name says it for all."""
    if config.file is not None:
        path = root / config.file
        found = [path] if path.is_file() else sorted(path.parent.glob(path.name))
        if not found:
            raise DataError(f"`data.file` must name Parquet files, found none at {path}. Check it.")
    else:
        found = sorted(root.glob("*.parquet")) or sorted((root / "data").glob("*.parquet"))
        if not found:
            raise DataError(
                f"{root} must hold Parquet files, found none there nor in the folder data. Check "
                "--data-root, or name them with `data.file`."
            )
    named = [_part_of(path) for path in found]
    if config.split is not None or not any(named):
        return [(path, None) for path in found]
    if None in named:
        raise DataError(
            f"{found[named.index(None)].name} must be named after a part like "
            f"{found[named.index(next(part for part in named if part))].name}, such as "
            "train-0.parquet. Rename it, or name the files with `data.file`."
        )
    return list(zip(found, named, strict=True))


def _part_of(path: Path) -> PartName | None:
    """The part that a file's name begins with."""
    for end in range(len(path.stem), 0, -1):
        if path.stem[end:][:1].isalpha():
            continue
        if part := parts.SPELLINGS.get(path.stem[:end].lower()):
            return part
    return None


def _read_file(path: Path, wanted: Mapping[str, str]) -> Any:
    parquet = import_parquet()
    try:
        file = parquet.ParquetFile(path)
        check_columns(path.name, file.schema_arrow.names, wanted)
        return file.read(columns=list(wanted))
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        raise DataError(
            f"{path.name} must be a whole Parquet file, it does not read ({in_one_line(error)}). "
            "Write it again."
        ) from None


def _check_cells(read: Sequence[Any], column: str, what: str, key: str) -> None:
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


def _dense_columns(tables: Mapping[str, TaskConfig]) -> dict[str, str]:
    """Return by task of pixels the column of its labels.

    Raises:
        RecipeError: a task names several.
    """
    found = {}
    for task, own in tables.items():
        if reads_pixels(own.kind, task):
            if isinstance(own.target, list):
                raise RecipeError(
                    f"`tasks.{task}.target` must be one column, of arrays, got {own.target}. Name "
                    "one."
                )
            found[task] = own.target or task
    return found


def _labels(cells: Cells) -> list[Label | None]:
    """Return the labels of a column; None for an empty cell."""
    return [None if cells.is_empty(row) else Label(cells, row) for row in range(len(cells.places))]


def _features(read: Sequence[Any]) -> dict[str, Mapping[str, Any]]:
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


def _class_names(features: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """By column, the names of its classes."""
    return {
        name: [str(each) for each in own["names"]]
        for name, own in features.items()
        if own.get("_type") == "ClassLabel" and isinstance(own.get("names"), list)
    }


def _shape(feature: Mapping[str, Any] | None) -> tuple[int, ...] | None:
    """The shape of a column's arrays, where it is said."""
    found = (feature or {}).get("shape")
    is_shape = isinstance(found, list) and all(type(each) is int and each > 0 for each in found)
    return tuple(found) if is_shape and found else None


def _classes(
    tables: Mapping[str, TaskConfig], names: Mapping[str, list[str]]
) -> dict[str, dict[str, Any]]:
    found = {}
    for task, own in tables.items():
        column = task if own.target is None else own.target
        if own.kind == "classes" and isinstance(column, str) and column in names:
            found[task] = {"classes": names[column]}
    return found


def _join(read: Sequence[Any], column: str, names: Mapping[str, list[str]]) -> list[Any]:
    """Join a column of all files; numbers of classes get their names."""
    values = [value for one in read for value in one.column(column).to_pylist()]
    known = names.get(column)
    return values if known is None else [_name(value, known) for value in values]


def _name(value: Any, known: Sequence[str]) -> Any:
    """The name of a class; -1 stands for none, anything else is left to the task to refuse."""
    if not isinstance(value, int):
        return value
    if value == -1:
        return None
    return known[value] if 0 <= value < len(known) else value


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


def _one_size(pictures: Pictures) -> tuple[int, int] | None:
    """Return the size of images if it is the same of all, and check how each begins."""
    faults, sizes = Faults(), set()
    for row in range(len(pictures.cells.places)):
        try:
            sizes.add(pictures.size(row))
        except DataError as error:
            faults.add(str(error))
    faults.check()
    return sizes.pop() if len(sizes) == 1 else None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
