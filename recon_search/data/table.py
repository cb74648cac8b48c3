"""`table`: a folder of images and a CSV or Parquet file; a row an image, a column a task.

Of a task of pixels the column holds the path of a label's file below the root: PNG, NPY.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image

from recon_search.artefact import digest
from recon_search.data import parts
from recon_search.data.contents import Content, digest_of, one_size, read_contents
from recon_search.data.listing import (
    SHOWN,
    Faults,
    Listing,
    assemble,
    check_tasks,
    without_missing,
)
from recon_search.data.pictures import read_picture
from recon_search.data.source import PartName
from recon_search.data.tables import Table, read_table
from recon_search.data.task_data import TaskData
from recon_search.errors import DataError, RecipeError, nearest
from recon_search.recipe import DataConfig, TaskConfig
from recon_search.tasks import cells
from recon_search.tasks.registry import reads_pixels


@dataclass(frozen=True)
class Files:
    """Image files.

    Attributes:
        root: their folder.
        names: below it.
        places: where each is listed, for errors.
        channels: 1 or 3.
    """

    root: Path
    names: list[str]
    places: list[str]
    channels: int

    def read(self, row: int) -> Image:
        """Decode one."""
        return read_picture(self.root / self.names[row], self.places[row], self.channels)


def read_images_and_table(config: DataConfig, tables: Mapping[str, TaskConfig]) -> TaskData:
    """Read a table, and check that its images are there.

    Args:
        config: `root`, `file`, `image`, and `split`, `ratio` and `group`.
        tables: the tasks; `target` names a column, without it the task's name does.

    Raises:
        DataError: naming file and row of what is missing, malformed or of no use.
        RecipeError: a key is missing.
    """
    check_tasks(config, tables)
    root = find_root(config)
    if config.file is None or config.image is None:
        key = "file" if config.file is None else "image"
        raise RecipeError(f"`data.{key}` is needed for '{config.name}' data and missing. Set it.")
    path = root / Path(config.file).expanduser()  # of an absolute one, itself
    table = read_table(path, wanted_columns(config, tables), config.delimiter)
    names, contents = _find_images(table, config.image, root)
    places = [f"{table.places[row]} ({name})" for row, name in enumerate(names)]
    labels = {
        name: _find_labels(table, name, own, config, root)
        for name, own in tables.items()
        if reads_pixels(own.kind, name)
    }
    named = dict.fromkeys(label for column in labels.values() for label in column if label)
    contents |= read_contents(root, [label for label in named if label not in contents])
    parts_of_digest: list[Any] = [
        digest_of(path.read_bytes()),
        {name: contents[name].digest for name in names},
    ]
    if named:
        parts_of_digest.append({name: contents[name].digest for name in named})
    listing = Listing(
        name=table.name,
        keys=names,
        places=places,
        pictures=Files(root, names, places, config.channels),
        cells=read_cells(table, {n: own for n, own in tables.items() if n not in labels}),
        files={
            name: [None if label is None else root / label for label in column]
            for name, column in labels.items()
        },
        options=options_of(tables),
        image_size=one_size(contents[name] for name in names),
        given=read_parts(table, config.split),
        groups=read_groups(table, config.group),
        fingerprint=digest(parts_of_digest),
    )
    return assemble(listing, config, tables)


def find_root(config: DataConfig) -> Path:
    """Return the folder of the data.

    Raises:
        DataError: none is named, or there is none.
    """
    if config.root is None:
        raise DataError(
            f"'{config.name}' data need a folder, got no data root. Set `data.root`, or pass "
            "--data-root FOLDER."
        )
    root = Path(config.root).expanduser()
    if not root.is_dir():
        raise DataError(
            f"`data.root` must be a folder, found none at {root}. Check it, or pass --data-root."
        )
    return root


def targets_of(name: str, table: TaskConfig) -> list[str]:
    """Return the columns of a task's labels."""
    if table.target is None:
        return [name]
    return [table.target] if isinstance(table.target, str) else list(table.target)


def read_cells(table: Table, tables: Mapping[str, TaskConfig]) -> dict[str, Sequence[Any]]:
    """Return by task the cells of its column; of several columns, lists of them."""
    found: dict[str, Sequence[Any]] = {}
    for name, own in tables.items():
        columns = [table.columns[column] for column in targets_of(name, own)]
        is_one = not isinstance(own.target, list)
        found[name] = columns[0] if is_one else [list(row) for row in zip(*columns, strict=True)]
    return found


def options_of(tables: Mapping[str, TaskConfig]) -> dict[str, dict[str, Any]]:
    """Return what columns say of tasks: several of labels hold a yes or no each."""
    return {
        name: {"classes": own.target, "flags": True}
        for name, own in tables.items()
        if own.kind == "labels" and isinstance(own.target, list)
    }


def wanted_columns(config: DataConfig, tables: Mapping[str, TaskConfig]) -> dict[str, str]:
    """Return the columns that a recipe names, and the key that names each."""
    named: dict[str, str] = {}
    for name, own in tables.items():
        key = f"tasks.{name}" if own.target is None else f"tasks.{name}.target"
        named |= dict.fromkeys(targets_of(name, own), key)
    for key in ("group", "split", "image"):
        if (column := getattr(config, key)) is not None:
            named[column] = f"data.{key}"
    return named


def read_parts(table: Table, column: str | None) -> list[PartName] | None:
    """Read the parts that a column names; None for no column."""
    if column is None:
        return None
    faults = Faults()
    found: list[PartName] = []
    for row, cell in enumerate(table.columns[column]):
        try:
            found.append(parts.read_part("" if cell is None else str(cell)))
        except DataError as error:
            faults.add(f"{table.places[row]}: a part in column '{column}' {error} Correct it.")
    faults.check()
    return found


def read_groups(table: Table, column: str | None) -> list[str] | None:
    """Read the groups that a column names; None for no column."""
    if column is None:
        return None
    faults = Faults()
    found = []
    for row, cell in enumerate(table.columns[column]):
        group = cells.text(cell)
        if group is None:
            faults.add(
                f"{table.places[row]}: every sample must have a group in column '{column}', found "
                "none. Fill it; a name of its own makes it a group of one."
            )
        found.append(str(group))
    faults.check()
    return found


def _find_images(table: Table, column: str, root: Path) -> tuple[list[str], dict[str, Content]]:
    """Find the image of every row, by its name below the root, and what the files hold.

    Raises:
        DataError: names rows whose image is missing, and those whose image is none, in turns.
    """
    missing: list[str] = []
    found: dict[str, int] = {}
    for row, (cell, place) in enumerate(zip(table.columns[column], table.places, strict=True)):
        try:
            name = _find_image(cell, column, root, look_near=len(missing) < SHOWN)
        except DataError as error:
            missing.append(f"{place}: {error}")
            continue
        other = found.setdefault(name, row)
        if other != row:
            missing.append(
                f"{place}: an image must have one row, {name} has another, "
                f"{table.places[other]}. Keep one."
            )
    contents = read_contents(root, found)
    damaged = [
        f"{table.places[row]} ({name}): {contents[name].fault}"
        for name, row in found.items()
        if contents[name].fault
    ]
    faults = Faults()
    for pair in itertools.zip_longest(missing, damaged):
        for line in filter(None, pair):
            faults.add(line)
    faults.check()
    return list(found), contents


def _find_labels(
    table: Table, task: str, own: TaskConfig, config: DataConfig, root: Path
) -> list[str | None]:
    """Find the files of a column that hold labels of pixels; None for an empty cell."""
    if isinstance(own.target, list):
        raise RecipeError(
            f"`tasks.{task}.target` must be one column, of files, got {own.target}. Name one."
        )
    column = own.target or task
    faults = Faults()
    found: list[str | None] = []
    for place, cell in zip(table.places, table.columns[column], strict=True):
        try:
            is_empty = without_missing(cell, config.missing) is None
            near = len(faults) < SHOWN
            found.append(
                None if is_empty else _find_image(cell, column, root, "a label", look_near=near)
            )
        except DataError as error:
            faults.add(f"{place}: task '{task}': {error}")
    faults.check()
    return found


def _find_image(
    cell: Any, column: str, root: Path, what: str = "an image", *, look_near: bool
) -> str:
    text = "" if cell is None else str(cell).strip()
    if not text:
        raise DataError(f"column '{column}' must name {what}, found an empty cell. Fill it.")
    if not os.path.isfile(root / text):  # false for what can be no path, too
        text = text.replace("\\", "/")  # as Windows writes paths
    name = os.path.normpath(os.path.relpath(root / text, root))
    if name == ".." or name.startswith(f"..{os.sep}"):
        raise DataError(
            f"{what} must lie in the data root, {text} lies outside. Move it, or name another "
            "--data-root."
        )
    path = root / name
    if not os.path.isfile(path):
        if os.path.isdir(path) or os.path.islink(path):
            found = "a folder" if os.path.isdir(path) else "a link to nothing"
            raise DataError(f"{what} must be a file, found {found} at {path}. Check the cell.")
        is_listed = look_near and os.path.isdir(path.parent)
        raise DataError(
            f"{what} must exist, found none at {path}."
            f"{_near(path) if is_listed else ''} Check the cell, or --data-root."
        )
    return name


def _near(path: Path) -> str:
    """Propose files of a folder: of the same numbers, for others are other images."""
    own = _numbers(path.name)
    names = (each.name for each in path.parent.iterdir())
    near = list(itertools.islice((name for name in names if _numbers(name) == own), 1000))
    if cut := [name for name in near if Path(name).stem == path.name]:
        return f" Did you mean '{cut[0]}'?"
    return nearest(path.name, near)


def _numbers(name: str) -> list[str]:
    """The numbers in a name, without the zeros they begin with."""
    return [number.lstrip("0") for number in re.findall(r"\d+", name)]
