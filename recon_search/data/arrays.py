"""`arrays`: root/train/image/0.npy, root/train/depth/0.npy, ...: a folder of arrays for each task.

So are the copies of NYUv2 and CityScapes laid out that multi-task papers train on. There `val` is
what papers test on, and no third part exists: without a folder for test, the validation folder is
the test part, and validation is cut off the training part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from recon_search.artefact import digest
from recon_search.data import parts
from recon_search.data.array_files import Labels, Read, read_image, read_label
from recon_search.data.contents import read_contents
from recon_search.data.listing import SHOWN, Faults, check_tasks
from recon_search.data.pictures import extensions
from recon_search.data.source import PARTS, PartName
from recon_search.data.table import find_root
from recon_search.data.task_data import TaskData
from recon_search.errors import DataError, LabelError, RecipeError
from recon_search.recipe import DataConfig, TaskConfig
from recon_search.tasks.registry import fit_pixels
from recon_search.tasks.task import PixelTask

T = TypeVar("T")

IMAGES = ("image", "images")
"""Folders of images where `data.image` names none."""

CUT = 0.15
"""Share of the training part that is cut off for validation where `data.ratio` says nothing."""


@dataclass(frozen=True)
class Row:
    """The files of a sample: its image, by task its label, and others that labels are made of."""

    image: Path
    labels: Mapping[str, Path]
    others: tuple[Path, ...] = ()


@dataclass(frozen=True)
class ArraySamples:
    """One part, read a sample at a time.

    Attributes:
        rows: its files.
        tasks: read the labels.
        channels: of images that are pictures.
        read: reads a label.
        is_fitted: bring labels of another size than their image to its own, by the nearest pixel.
    """

    rows: Sequence[Row]
    tasks: Sequence[PixelTask]
    channels: int
    read: Read | None = None
    is_fitted: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        row = self.rows[index]
        image, turn = read_image(row.image, self.channels)
        size = tuple(image.shape[-2:])
        targets = {
            task.name: read_label(
                task, row.labels[task.name], size, turn, self.read, is_fitted=self.is_fitted
            )
            for task in self.tasks
        }
        return image, targets


@dataclass(frozen=True)
class Places:
    """Says which image a sample of a part is."""

    rows: Mapping[PartName, Sequence[Row]]

    def __call__(self, part: PartName, index: int) -> str:
        """Name the file."""
        return str(self.rows[part][index].image)


def read_arrays(config: DataConfig, tables: Mapping[str, TaskConfig]) -> TaskData:
    """Find the arrays of every part and task; the contents of none but for a task's classes.

    Args:
        config: `root`, `image` for the folder of images, `ratio`.
        tables: the tasks, of kinds of pixels; `target` names a folder, else the task's name does.

    Raises:
        DataError: a folder or a counterpart is missing, or a part is empty; names the file.
        RecipeError: a task is of another kind.
    """
    check_tasks(config, tables)
    root = find_root(config)
    folders = _find_parts(root)
    rows = {part: _list(folder, config, tables) for part, folder in folders.items()}
    return make_data(rows, root, config, tables)


def make_data(
    rows: Mapping[PartName, list[Row]],
    root: Path,
    config: DataConfig,
    tables: Mapping[str, TaskConfig],
    read: Read | None = None,
    *,
    is_fitted: bool = False,
) -> TaskData:
    """Make tasks and parts of files; validation is cut off training where no part is for it.

    Args:
        rows: the samples of training and test, and perhaps of validation.
        root: the folder that all lie in.
        config: `ratio` and `channels`.
        tables: the tasks.
        read: reads a label.
        is_fitted: as `ArraySamples` has it.

    Raises:
        DataError: a file cannot be read, or a part is empty.
        RecipeError: a task is of another kind.
    """
    contents = read_contents(
        root,
        [
            str(path.relative_to(root))
            for own in rows.values()
            for row in own
            for path in (row.image, *row.labels.values(), *row.others)
        ],
    )
    rows = complete(rows, lambda row: row.image.stem, root, config)
    tasks = [_fit(name, own, rows["train"], read) for name, own in tables.items()]
    return TaskData(
        tasks=tasks,
        parts={
            part: ArraySamples(rows[part], tasks, config.channels, read, is_fitted)
            for part in PARTS
        },
        fingerprint=digest({name: content.digest for name, content in contents.items()}),
        describe=Places(rows),
    )


def _find_parts(root: Path) -> dict[PartName, Path]:
    """Find the folder of each part."""
    found: dict[PartName, Path] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        part = parts.SPELLINGS.get(folder.name.lower())
        if part is None:
            continue
        if part in found:
            raise DataError(
                f"{root} must have one folder for {part}, found {found[part].name} and "
                f"{folder.name}. Remove one."
            )
        found[part] = folder
    if "train" not in found or len(found) == 1:
        names = ", ".join(folder.name for folder in found.values()) or "none of these"
        raise DataError(
            f"{root} must have the folders train and test, and perhaps val, found {names}. Check "
            "`data.root`."
        )
    if "test" not in found:
        found["test"] = found.pop("validation")
    return found


def _list(folder: Path, config: DataConfig, tables: Mapping[str, TaskConfig]) -> list[Row]:
    """List the samples of a part, by their numbers or names."""
    images = _files(_find_images(folder, config))
    labels = {name: _files(_find_labels(folder, name, own)) for name, own in tables.items()}
    faults = Faults()
    for name, own in labels.items():
        for have, lack, path in (
            (images, own, _find_labels(folder, name, tables[name])),
            (own, images, _find_images(folder, config)),
        ):
            lacking = [stem for stem in have if stem not in lack]
            if lacking:
                shown = ", ".join(str(have[stem]) for stem in lacking[:SHOWN])
                more = ", ..." if len(lacking) > SHOWN else ""
                faults.add(
                    f"{path} must hold a counterpart of every file, found none of {shown}{more}. "
                    "Add it, or remove the other."
                )
    faults.check()
    if not images:
        raise DataError(
            f"{_find_images(folder, config)} must hold images as .npy arrays or pictures, found "
            "none. Check the folder."
        )
    return [
        Row(path, {name: own[stem] for name, own in labels.items()})
        for stem, path in images.items()
    ]


def _find_images(folder: Path, config: DataConfig) -> Path:
    names = IMAGES if config.image is None else (config.image,)
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    raise DataError(
        f"{folder} must have a folder of images, found none called {' or '.join(names)}. Name it "
        "by `data.image`."
    )


def _find_labels(folder: Path, name: str, table: TaskConfig) -> Path:
    if isinstance(table.target, list):
        raise RecipeError(
            f"`tasks.{name}.target` must be one folder, got {table.target}. Name one."
        )
    found = folder / (table.target or name)
    if not found.is_dir():
        others = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir()))
        raise DataError(
            f"{found} must be a folder with the labels of task '{name}', found none; there are "
            f"{others}. Name it by `tasks.{name}.target`."
        )
    return found


def _files(folder: Path) -> dict[str, Path]:
    """Return the arrays of a folder by their names without endings; 10 comes after 9."""
    usable = {".npy", *extensions()}
    found: dict[str, Path] = {}
    for path in folder.iterdir():
        if path.suffix.lower() not in usable or path.name.startswith("."):
            continue
        if path.stem in found:
            first, second = sorted([path.name, found[path.stem].name])
            raise DataError(
                f"{folder} must hold one file a sample, found {first} and {second}. Remove one."
            )
        found[path.stem] = path
    return {stem: found[stem] for stem in sorted(found, key=_place)}


def _place(stem: str) -> tuple[bool, int, str]:
    is_number = stem.isascii() and stem.isdecimal()
    return not is_number, int(stem) if is_number else 0, stem


def complete(
    rows: Mapping[PartName, list[T]], key: Callable[[T], str], root: Path, config: DataConfig
) -> dict[PartName, list[T]]:
    """Cut the validation part off the training part where there is none.

    Args:
        rows: the samples of each part.
        key: what a training sample is called, wherever it lies.
        root: of all, for errors.
        config: `ratio` and `seed`.

    Raises:
        DataError: there is a validation part and a ratio, or too few samples to cut.
    """
    if "validation" in rows:
        if config.ratio is not None:
            raise DataError(
                f"{root} has train, validation and test parts, and `data.ratio` would cut nothing, "
                f"got {list(config.ratio)}. Remove it."
            )
        return dict(rows)
    ratio = (1 - CUT, CUT) if config.ratio is None else config.ratio[:2]
    train = rows["train"]
    given = parts.cut(
        [key(row) for row in train], ratio, config.seed, parts=("train", "validation")
    )
    found: dict[PartName, list[T]] = {"train": [], "validation": [], "test": rows["test"]}
    for row, part in zip(train, given, strict=True):
        found[part].append(row)
    if not found["train"] or not found["validation"]:
        raise DataError(
            f"{root} must have enough training samples to cut validation off, found {len(train)}. "
            "Add a folder val and one test, or samples."
        )
    return found


def _fit(name: str, table: TaskConfig, rows: Sequence[Row], read: Read | None) -> PixelTask:
    """Make a task; errors name the file."""
    files = [(row.labels[name], str(row.labels[name])) for row in rows]
    labels = Labels(files, str(rows[0].labels[name].parent), name, read)
    try:
        return fit_pixels(name, labels, {"kind": table.kind, **table.options})
    except LabelError as error:
        raise LabelError(f"{labels.place}: {error}") from None
