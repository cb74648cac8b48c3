"""`parquet`: images in the cells of Parquet files, as the Hugging Face hub's mirrors hold them.

Labels of pixels stand in cells, too, as images do: bytes of PNG or NPY files, or nested lists, of
images with the channels first or last. What is null has no label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recon_search.artefact import digest
from recon_search.data import parts
from recon_search.data.listing import Faults, Listing, assemble, check_tasks
from recon_search.data.parquet_cells import (
    Cells,
    Label,
    Pictures,
    check_cells,
    features_of,
    join_cells,
)
from recon_search.data.source import PartName
from recon_search.data.table import (
    find_root,
    options_of,
    read_cells,
    read_groups,
    read_parts,
    wanted_columns,
)
from recon_search.data.tables import Table, check_columns, import_parquet
from recon_search.data.task_data import TaskData
from recon_search.disk import refuse_special
from recon_search.errors import DataError, RecipeError, in_one_line
from recon_search.recipe import DataConfig, TaskConfig
from recon_search.tasks.registry import reads_pixels

IMAGE = "image"
"""The column of the images where a recipe names none."""


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
    files = find_files(config, find_root(config))
    wanted = wanted_columns(config, tables)
    read = [read_file(path, wanted) for path, _ in files]
    check_cells(read, config.image, "images", "data.image")
    dense = _dense_columns(tables)
    for task, column in dense.items():
        check_cells(read, column, "labels of pixels", f"tasks.{task}.target")
    features = features_of(read)
    pictures = Pictures(join_cells(files, read, config.image), config.channels)
    places = pictures.cells.places
    names = _class_names(features)
    name = files[0][0].name if len(files) == 1 else str(files[0][0].parent)
    others = [column for column in wanted if column not in (config.image, *dense.values())]
    sizes = [one.num_rows for one in read]
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
        files={task: _labels(join_cells(files, read, column)) for task, column in dense.items()},
        given=given,
        groups=read_groups(table, config.group),
        options=options_of(tables) | _classes(tables, names),
        fingerprint=digest([[path.name, part, digest_of_file(path)] for path, part in files]),
        image_size=_one_size(pictures),
    )
    return assemble(listing, config, tables)


def find_files(config: DataConfig, root: Path) -> list[tuple[Path, PartName | None]]:
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


def read_file(path: Path, wanted: Mapping[str, str]) -> Any:
    """Read columns of a Parquet file.

    Raises:
        DataError: it is damaged, or lacks one.
    """
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


def _class_names(features: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """By column, the names of its classes."""
    return {
        name: [str(each) for each in own["names"]]
        for name, own in features.items()
        if own.get("_type") == "ClassLabel" and isinstance(own.get("names"), list)
    }


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


def digest_of_file(path: Path) -> str:
    """Return 16 hex digits of the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
