"""`image-folder`: root/train/CLASS/*.jpg for one task, root/TREE/train/CLASS/*.jpg for several.

A file that stands in several trees, by its name below the class, is one sample with several labels;
elsewhere it has no label of the other tasks. With `own_batches` trees have nothing to do with each
other, and each is its task's data alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from recon_search.artefact import digest
from recon_search.data import parts
from recon_search.data.contents import Content, one_size, read_contents
from recon_search.data.listing import Faults, Listing, assemble
from recon_search.data.pictures import extensions
from recon_search.data.source import PartName
from recon_search.data.table import Files, find_root
from recon_search.data.task_data import TaskData
from recon_search.errors import DataError, RecipeError, nearest
from recon_search.recipe import DataConfig, TaskConfig
from recon_search.tasks import cells

LABEL = "label"
"""What the task is called where a recipe names none."""

Places = dict[tuple[PartName, str], dict[str, str]]
"""By part and name below the class, and then by task, the file's path below the root."""


def read_folders(config: DataConfig, tables: Mapping[str, TaskConfig]) -> TaskData:
    """Find the images of every part and class.

    Args:
        config: `root`, and `ratio` for parts that have no folder.
        tables: the tasks, of the kind classes. One without `target` has the root to itself; with
            several, each is the folder `target`, by default of the task's name.

    Raises:
        DataError: a folder is missing, a file stands where it can mean nothing or two things.
        RecipeError: a task is of another kind.
    """
    tables = {
        name: own.model_copy(update={"kind": "classes"})
        for name, own in (tables or {LABEL: TaskConfig()}).items()
        if _is_folder_task(name, own)
    }
    root = find_root(config)
    trees = {name: _tree_of(name, own, len(tables)) for name, own in tables.items()}
    where = _collect(root, trees, joined=len(trees) > 1 and not config.own_batches)
    names = [next(iter(files.values())) for files in where.values()]
    contents = read_contents(root, [path for files in where.values() for path in files.values()])
    _check_contents(where, contents)
    listing = Listing(
        name=str(root),
        keys=names,
        places=names,
        pictures=Files(root, names, names, config.channels),
        cells={
            name: [_class_of(files.get(name), tree) for files in where.values()]
            for name, tree in trees.items()
        },
        given=[part for part, _ in where],
        fingerprint=digest(
            [
                [part, {task: [path, contents[path].digest] for task, path in files.items()}]
                for (part, _), files in where.items()
            ]
        ),
        image_size=one_size(contents.values()),
    )
    return assemble(listing, config, tables)


def _is_folder_task(name: str, table: TaskConfig) -> bool:
    if table.kind not in (None, "classes"):
        raise RecipeError(
            f"`tasks.{name}.kind` must be \"classes\" for 'image-folder' data, whose folders are "
            f"classes, got '{table.kind}'. Change it, or describe the images by a table."
        )
    if isinstance(table.target, list):
        raise RecipeError(
            f"`tasks.{name}.target` must be one folder, got {table.target}. Name one."
        )
    return True


def _tree_of(name: str, table: TaskConfig, n_tasks: int) -> str:
    """The folder of a task below the root; "" for the root itself."""
    assert not isinstance(table.target, list)
    return (name if n_tasks > 1 else "") if table.target is None else table.target


def _collect(root: Path, trees: Mapping[str, str], *, joined: bool) -> Places:
    """List the files of all trees; those of one name are one sample if trees are joined."""
    faults = Faults()
    where: Places = {}
    for task, tree in trees.items():
        for part, folder in _parts_in(root, tree):
            for path in images_below(folder):
                name = path.relative_to(root).as_posix()
                _, _, below = path.relative_to(folder).as_posix().partition("/")
                if not below:
                    faults.add(
                        f"{name}: an image must stand in the folder of its class, found it beside "
                        "them. Move it."
                    )
                    continue
                own = path.relative_to(folder).parts[0]
                if (meant := cells.text(own)) != own:
                    faults.add(
                        f"{name}: a folder's name must be that of a class as it stands, {own!r} "
                        f"would be read as {meant or 'no label'}. Rename it."
                    )
                    continue
                files = where.setdefault((part, below if joined else name), {})
                if task in files:
                    faults.add(
                        f"{name}: of several trees each must have a name once a part, found it "
                        f"also at {files[task]}. Rename one, in all trees."
                    )
                files.setdefault(task, name)
    if joined:
        first: dict[str, PartName] = {}
        for (part, below), files in where.items():
            if (other := first.setdefault(below, part)) != part:
                faults.add(
                    f"{next(iter(files.values()))}: an image must stand in one part, found {below} "
                    f"in {other} and in {part}. Keep one, or rename one."
                )
    faults.check()
    if not where:
        raise DataError(f"{root} must hold images in folders train/CLASS, found none. Check it.")
    return dict(sorted(where.items()))


def _parts_in(root: Path, tree: str) -> Iterator[tuple[PartName, Path]]:
    """The folders of the parts of one tree.

    Raises:
        DataError: there is no such tree, no folder `train`, or two folders for one part.
    """
    base = root / tree
    if not base.is_dir():
        known = [each.name for each in root.iterdir() if each.is_dir()]
        raise DataError(
            f"{root} must hold the folder '{tree}' of a task, found none.{nearest(tree, known)} "
            "Check `target`, or --data-root."
        )
    found: dict[PartName, Path] = {}
    folders = sorted(each for each in base.iterdir() if each.is_dir())
    for folder in folders:
        part = parts.SPELLINGS.get(folder.name.lower())
        if part in found:
            raise DataError(
                f"{base} must hold one folder for the {part} part, found {found[part].name} and "
                f"{folder.name}. Keep one."
            )
        if part is not None:
            found[part] = folder
    if "train" not in found:
        names = ", ".join(folder.name for folder in folders[:8]) or "none"
        raise DataError(
            f"{base} must hold a folder train with a folder for each class, found {names}. Check "
            "--data-root, or put the classes into train."
        )
    yield from found.items()


def images_below(folder: Path) -> Iterator[Path]:
    """Image files in a folder and below, but for hidden ones; links are followed."""
    known = extensions()
    for base, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for file in sorted(files):
            if not file.startswith(".") and os.path.splitext(file)[1].lower() in known:
                yield Path(base, file)


def _class_of(path: str | None, tree: str) -> str | None:
    """The class that a file below the root is of: the folder after those of tree and part."""
    if path is None:
        return None
    below = Path(path).relative_to(tree) if tree else Path(path)
    return below.parts[1]


def _check_contents(where: Places, contents: Mapping[str, Content]) -> None:
    """Refuse files that are no images, and files of one name that are different images."""
    faults = Faults()
    for files in where.values():
        first, *others = files.values()
        if fault := contents[first].fault:
            faults.add(f"{first}: {fault}")
        for other in others:
            if contents[other].digest != contents[first].digest:
                faults.add(
                    f"{other}: files of one name in several trees must be one image, {first} holds "
                    "another. Rename one, or copy the right one."
                )
    faults.check()
