"""Samples that files list, made into tasks, parts and targets; what is wrong is named by place."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from recon_search.data import parts
from recon_search.data.array_files import Labels, Stored
from recon_search.data.listed import ListedSamples, Pictures
from recon_search.data.source import PARTS, PartName
from recon_search.data.task_data import TaskData
from recon_search.errors import DataError, LabelError, RecipeError
from recon_search.recipe import DataConfig, TaskConfig
from recon_search.tasks import cells
from recon_search.tasks.registry import fit_pixels, fit_task
from recon_search.tasks.task import CellTask, PixelTask, Task

T = TypeVar("T")

SHOWN = 5
"""Faults of one kind that are reported together."""

STRATIFIED = frozenset(["classes", "binary"])
"""Kinds of tasks whose labels a cut by ratio spreads evenly."""


@dataclass(frozen=True)
class Listing:
    """Samples as files list them.

    Attributes:
        name: of the list, as errors call it.
        keys: what tells samples apart, wherever they lie; each once.
        places: where each is listed, as errors call it.
        pictures: their images.
        cells: by task, what says the label of each; not of tasks of pixels.
        given: the part of each, where the data say it.
        groups: of each, where the recipe names them.
        options: by task, what the files say of it, such as its classes; the recipe goes first.
        fingerprint: of the files.
        image_size: (H, W) if it is that of all images.
        files: by task of pixels, what holds the label of each; None for no label.
    """

    name: str
    keys: Sequence[str]
    places: Sequence[str]
    pictures: Pictures
    cells: Mapping[str, Sequence[Any]]
    given: Sequence[PartName] | None
    groups: Sequence[Hashable] | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fingerprint: str = ""
    image_size: tuple[int, int] | None = None
    files: Mapping[str, Sequence[Path | Stored | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Places:
    """Says where a sample of a part is listed."""

    places: Sequence[str]
    rows: Mapping[PartName, Sequence[int]]

    def __call__(self, part: PartName, index: int) -> str:
        """Name the file and the row."""
        return self.places[self.rows[part][index]]


class Faults:
    """Collects what is wrong, to report the first few together."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        """Take in one; what a cell holds that would break it is written as in Python."""
        self._lines.append("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line))

    def __len__(self) -> int:
        return len(self._lines)

    def check(self) -> None:
        """Raise a `DataError` if there is any: a line each, and how many more there are."""
        if not self._lines:
            return
        lines = self._lines[:SHOWN]
        if more := len(self._lines) - len(lines):
            lines.append(f"And {more} more of these. Mend them, too.")
        raise DataError("\n".join(lines))


def assemble(listing: Listing, config: DataConfig, tables: Mapping[str, TaskConfig]) -> TaskData:
    """Cut samples into parts, make the tasks of the training part, and read all labels.

    Raises:
        DataError: a part is empty, a label is of no use, or a part has no label of a task.
        RecipeError: a task's options are of no use.
    """
    missing = [each for given in config.missing for each in (given, cells.text(given)) if each]
    without = _once(functools.partial(without_missing, missing=missing))
    found = {task: [without(cell) for cell in column] for task, column in listing.cells.items()}
    rows = _cut(listing, config, tables, found)
    faults = Faults()
    train = rows["train"]
    fitted: list[CellTask | PixelTask | None] = []
    for name in tables:
        options, column = _options(listing, tables, name), found.get(name)
        if column is None:
            fitted.append(_fit_pixels(name, train, listing, options, faults))
        else:
            fitted.append(_fit(name, column, train, listing, options, faults))
    faults.check()
    tasks = [task for task in fitted if task is not None]
    labels = {
        task.name: _read(task, found[task.name], listing, faults)
        for task in tasks
        if isinstance(task, CellTask) and task.name in found
    }
    faults.check()
    samples: dict[PartName, Any] = {}
    for part in PARTS:
        own = {task.name: _labelled(task, rows[part], found, labels, listing) for task in tasks}
        for task in tasks:
            if not own[task.name]:
                faults.add(
                    f"{listing.name} must have labels of task '{task.name}' in every part, found "
                    f"none in {part}. Label some, cut otherwise (`data.seed`, `data.ratio`), or "
                    "leave the task out."
                )
        if config.own_batches:
            samples[part] = {t.name: _pick(listing, labels, own[t.name], [t]) for t in tasks}
            rows[part] = [row for task in tasks for row in own[task.name]]
        else:
            samples[part] = _pick(listing, labels, rows[part], tasks)
    faults.check()
    return TaskData(
        tasks=tasks,
        parts=samples,
        image_size=listing.image_size,
        fingerprint=listing.fingerprint,
        describe=Places(listing.places, rows),
    )


def _labelled(
    task: Task,
    rows: Sequence[int],
    cells: Mapping[str, Sequence[Any]],
    labels: Mapping[str, Tensor],
    listing: Listing,
) -> list[int]:
    """Return the rows that have a label of a task."""
    if task.name not in cells:
        return [row for row in rows if listing.files[task.name][row] is not None]
    column, targets = cells[task.name], labels[task.name]
    filled = [row for row in rows if column[row] is not None]
    return [row for row in filled if task.n_labels(targets[row][None])]


def _pick(
    listing: Listing, labels: Mapping[str, Tensor], rows: Sequence[int], tasks: Sequence[Task]
) -> ListedSamples:
    """Return some of the samples as data of some of the tasks."""
    index = torch.tensor(rows, dtype=torch.long)
    own = {task.name: labels[task.name][index] for task in tasks if task.name in labels}
    dense = [task for task in tasks if task.name in listing.files and isinstance(task, PixelTask)]
    return ListedSamples(listing.pictures, rows, own, listing.files, dense)


def without_missing(cell: Any, missing: Sequence[str]) -> Any:
    """Return a cell, None if it says no more than that there is no label."""
    if isinstance(cell, list):
        entries = [without_missing(entry, missing) for entry in cell]
        return entries if not entries or any(entry is not None for entry in entries) else None
    found = cells.text(cell)
    return None if found is None or found in missing else cell


def check_tasks(config: DataConfig, tables: Mapping[str, TaskConfig]) -> None:
    """Check that a recipe says what is learned of listed samples.

    Raises:
        RecipeError: it names no task, or not the kind of one.
    """
    if not tables:
        raise RecipeError(
            f"'{config.name}' data need the tasks in the recipe, found none. Add a table such as "
            '[tasks.species] with kind = "classes".'
        )
    for name, table in tables.items():
        if table.kind is None:
            raise RecipeError(
                f'`tasks.{name}.kind` is needed and missing. Set it, such as kind = "classes".'
            )


def _options(listing: Listing, tables: Mapping[str, TaskConfig], name: str) -> dict[str, Any]:
    table = tables.get(name, TaskConfig())
    return {"kind": table.kind, **listing.options.get(name, {}), **table.options}


def _cut(
    listing: Listing,
    config: DataConfig,
    tables: Mapping[str, TaskConfig],
    columns: Mapping[str, Sequence[Any]],
) -> dict[PartName, list[int]]:
    strata = [
        list(map(_once(cells.text), column))
        for name, column in columns.items()
        if _options(listing, tables, name)["kind"] in STRATIFIED
    ]
    keys, seed, groups = listing.keys, config.seed, listing.groups
    if listing.given is None:
        ratio = config.ratio or parts.RATIO
        found = parts.cut(keys, ratio, seed, strata=strata, groups=groups)
    else:
        try:
            found = parts.complete(
                listing.given, keys, config.ratio, seed, strata=strata, groups=groups
            )
        except DataError as error:
            raise DataError(f"{listing.name} {error}") from None
    rows: dict[PartName, list[int]] = {part: [] for part in PARTS}
    for row, part in enumerate(found):
        rows[part].append(row)
    if empty := [part for part in PARTS if not rows[part]]:
        counts = ", ".join(f"{len(rows[part])} {part}" for part in PARTS)
        n = 0 if groups is None else len(set(groups))
        whole = f", of {n} group{'s' * (n > 1)} that stand{'s' * (n == 1)} in one part each"
        raise DataError(
            f"{listing.name} must have samples for every part, found {counts}{whole if n else ''}. "
            f"Add some to {' and '.join(empty)}, or change `data.ratio`."
        )
    _check_groups(listing, found)
    return rows


def _check_groups(listing: Listing, found: Sequence[PartName]) -> None:
    """Refuse groups that the data themselves put into two parts."""
    if listing.groups is None:
        return
    faults = Faults()
    first: dict[Hashable, int] = {}
    told = set()
    for row, group in enumerate(listing.groups):
        other = first.setdefault(group, row)
        if found[other] != found[row] and group not in told:
            told.add(group)
            faults.add(
                f"{listing.places[row]}: group {cells.show(group)} must stand in one part, found "
                f"it in {found[row]} and, {listing.places[other]}, in {found[other]}. Move one, or "
                "leave `data.split` or `data.group` out."
            )
    faults.check()


def _fit(
    name: str,
    column: Sequence[Any],
    rows: Sequence[int],
    listing: Listing,
    options: Mapping[str, Any],
    faults: Faults,
) -> CellTask | None:
    """Make a task of the training part; where cells are of no use, name them and return None."""
    left = list(rows)
    while True:
        try:
            return fit_task(name, [column[row] for row in left], options)
        except LabelError as error:
            wrong = _rows_of(str(error), lambda cell: fit_task(name, [cell], options), column, left)
            if error.cell is not None:
                wrong = [row for row in left if column[row] is error.cell][:1]
            labelled = sum(column[row] is not None for row in left)
            if not wrong or len(wrong) in (labelled, len(left)):
                if len(left) == len(rows):  # else it is but what remains that is of no use
                    faults.add(f"{listing.name}: {error}")
                return None
            for row in wrong:
                faults.add(f"{listing.places[row]}: {error}")
            left = [row for row in left if row not in set(wrong)]


def _fit_pixels(
    name: str,
    rows: Sequence[int],
    listing: Listing,
    options: Mapping[str, Any],
    faults: Faults,
) -> PixelTask | None:
    """Make a task of the training part's files; one that is of no use is named."""
    given = ((listing.files[name][row], listing.places[row]) for row in rows)
    labels = Labels([(path, place) for path, place in given if path is not None], listing.name)
    try:
        return fit_pixels(name, labels, options)
    except DataError as error:
        faults.add(f"{labels.place}: {error}")
        return None


def _rows_of(
    message: str, make: Callable[[Any], object], column: Sequence[Any], rows: Sequence[int]
) -> list[int]:
    """Find the rows whose cells alone give an error of this message."""
    same: dict[str, bool] = {}
    for row in rows:
        text = repr(column[row])
        if text not in same:
            try:
                make(column[row])
                same[text] = False
            except LabelError as error:
                same[text] = str(error) == message
    return [row for row in rows if same[repr(column[row])]]


def _read(task: CellTask, column: Sequence[Any], listing: Listing, faults: Faults) -> Tensor:
    """Read all labels of a task, (N, ...); what is of no use is added to the faults."""
    read = _once(task.target)
    found = []
    for cell, place in zip(column, listing.places, strict=True):
        try:
            found.append(read(cell))
        except LabelError as error:
            faults.add(f"{place}: {error}")
    return torch.stack(found) if found else torch.empty(0)


def _once(read: Callable[[Any], T]) -> Callable[[Any], T]:
    """Read equal texts once: a column of classes has few."""
    known: dict[str, T] = {}

    def look(cell: Any) -> T:
        if not isinstance(cell, str):
            return read(cell)
        if cell not in known:
            known[cell] = read(cell)
        return known[cell]

    return look
