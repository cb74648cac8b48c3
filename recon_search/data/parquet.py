"""`parquet`: images in the cells of Parquet files, as the Hugging Face hub's mirrors hold them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from recon_search.artefact import digest
from recon_search.data import parts
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
from recon_search.disk import refuse_special
from recon_search.errors import DataError, in_one_line
from recon_search.recipe import DataConfig, TaskConfig

IMAGE = "image"
"""The column of the images where a recipe names none."""


@dataclass(frozen=True)
class Cells:
    """Images in cells, held in memory as they are stored.

    Attributes:
        columns: of each file, an arrow array.
        starts: the first row of each file.
        places: of each row, for errors.
        channels: 1 or 3.
    """

    columns: Sequence[Any]
    starts: NDArray[np.int64]
    places: list[str]
    channels: int

    def read(self, row: int) -> Image:
        """Decode one."""
        return read_picture(self.content(row), self.places[row], self.channels)

    def content(self, row: int) -> bytes | NDArray[np.uint8]:
        """Return the bytes of an image file, or the pixels.

        Raises:
            DataError: the cell is empty, or holds neither.
        """
        file = int(np.searchsorted(self.starts, row, side="right")) - 1
        cell = self.columns[file][row - int(self.starts[file])]
        cell = getattr(cell, "value", cell)  # what an extension type stores
        if hasattr(cell, "values") and not hasattr(cell, "keys"):  # a list, not a struct
            return _pixels(cell.values, self.places[row])
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
    _check_images(read, config.image)
    numbered = (
        number_rows(path.name, one.num_rows) for (path, _), one in zip(files, read, strict=True)
    )
    places = [place for own in numbered for place in own]
    sizes = [one.num_rows for one in read]
    pictures = Cells(
        [one.column(config.image) for one in read],
        np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64),
        places,
        config.channels,
    )
    names = _class_names(read)
    name = files[0][0].name if len(files) == 1 else str(files[0][0].parent)
    others = [column for column in wanted if column != config.image]
    table = Table(name, {column: _join(read, column, names) for column in others}, places)
    given: list[PartName] | None = read_parts(table, config.split)
    if given is None and files[0][1] is not None:
        given = [part for (_, part), n in zip(files, sizes, strict=True) for _ in range(n) if part]
    listing = Listing(
        name=name,
        keys=places,
        places=places,
        pictures=pictures,
        cells=read_cells(table, tables),
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
    refuse_special(path)
    try:
        file = parquet.ParquetFile(path)
        check_columns(path.name, file.schema_arrow.names, wanted)
        return file.read(columns=list(wanted))
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        raise DataError(
            f"{path.name} must be a whole Parquet file, it does not read ({in_one_line(error)}). "
            "Write it again."
        ) from None


def _check_images(read: Sequence[Any], column: str) -> None:
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
                f"Column '{column}' must hold images as bytes, as a struct with bytes, or as "
                f"nested lists of pixels, found {kind}. Name another with `data.image`."
            )


def _class_names(read: Sequence[Any]) -> dict[str, list[str]]:
    """By column, the names of classes that `datasets` keeps in the metadata of a file."""
    found: dict[str, list[str]] = {}
    for one in read:
        try:
            told = json.loads((one.schema.metadata or {}).get(b"huggingface", b"{}"))
            features = told["info"]["features"]
            found |= {
                name: [str(each) for each in feature["names"]]
                for name, feature in features.items()
                if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
            }
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # none, or not as we know them
    return found


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


def _pixels(values: Any, place: str) -> NDArray[np.uint8]:
    """Turn nested lists into pixels.

    Raises:
        DataError: they have no shape, or hold no whole numbers from 0 to 255.
    """
    try:
        pixels = _nested(values)
        if pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 255:
            raise ValueError(f"{pixels.dtype} from {pixels.min()} to {pixels.max()}")
    except ValueError as error:
        raise DataError(
            f"{place}: pixels must be nested lists of one shape of whole numbers from 0 to 255, "
            f"found {error}. Convert them."
        ) from None
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


def _one_size(pictures: Cells) -> tuple[int, int] | None:
    """Return the size of images if it is the same of all, and check how each begins."""
    faults, sizes = Faults(), set()
    for row, place in enumerate(pictures.places):
        try:
            content = pictures.content(row)
            size = read_size(content, place) if isinstance(content, bytes) else content.shape[:2]
            sizes.add(tuple(size))
        except DataError as error:
            faults.add(str(error))
    faults.check()
    return sizes.pop() if len(sizes) == 1 else None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
