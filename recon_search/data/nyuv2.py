"""`nyuv2`: MTAN's copy, folders of .npy files, or its mirror in Parquet files, channels first.

`val` is what papers test on: it is the test part, and validation is cut off train (`data.ratio`),
in both layouts the same samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from recon_search.artefact import digest
from recon_search.data.array_files import as_image
from recon_search.data.arrays import complete, read_arrays
from recon_search.data.benchmark import Benchmark
from recon_search.data.listing import Places
from recon_search.data.parquet import digest_of_file, find_files, read_file
from recon_search.data.parquet_cells import Cells, join_cells
from recon_search.data.source import PARTS, PartName
from recon_search.data.task_data import TaskData
from recon_search.errors import DataError, LabelError
from recon_search.recipe import DataConfig, TaskConfig
from recon_search.tasks.registry import fit_pixels
from recon_search.tasks.task import PixelTask

CLASSES = (
    *("bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa"),
    *("table", "tv", "wall", "window"),
)
"""By their values in files."""

NYUV2 = Benchmark(
    "nyuv2",
    "Download the copy that the README of github.com/lorenmt/mtan links to, or the Hugging Face "
    "data set tanganke/nyuv2, and name its folder by --data-root.",
    {
        "segmentation": {"kind": "segments", "target": "label", "classes": CLASSES},
        "depth": {"kind": "depth", "target": "depth", "unit": "m"},
        "normals": {"kind": "normals", "target": "normal"},
    },
)

IMAGE = "image"
"""The mirror's column of images."""

COLUMNS = {"label": "segmentation"}
"""What the mirror calls folders otherwise."""


def read_nyuv2(config: DataConfig, tables: Mapping[str, TaskConfig]) -> TaskData:
    """Find the samples of NYUv2, in folders or in Parquet files.

    Args:
        config: `root`, `ratio`, `tasks`.
        tables: options; `target` names a folder or a column that is called otherwise.

    Raises:
        DataError: a folder, column or file is missing or of no use; names it.
        RecipeError: the recipe does not fit.
    """
    tables = NYUV2.settle(config, tables)
    root = NYUV2.root(config)
    found = NYUV2.find(
        root, "*.parquet", "data/*.parquet", "train/image", "train/images", what="train/ and val/"
    )
    if found.suffix != ".parquet":
        return read_arrays(config, tables)
    return _read_mirror(config, tables, root)


@dataclass(frozen=True)
class CellSamples:
    """One part of the mirror.

    Attributes:
        rows: of the files, by their place among all.
        images: cells of all files.
        labels: likewise, by task.
        tasks: read the labels.
    """

    rows: Sequence[int]
    images: Cells
    labels: Mapping[str, Cells]
    tasks: Sequence[PixelTask]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        row = self.rows[index]
        image = as_image(self.images.array(row), self.images.places[row])
        return image, {
            task.name: task.target(self.labels[task.name].array(row)) for task in self.tasks
        }


def _read_mirror(config: DataConfig, tables: Mapping[str, TaskConfig], root: Path) -> TaskData:
    """Read the columns of all files into memory: 2.8 GB of the whole set with three tasks."""
    columns = {name: COLUMNS.get(str(own.target), str(own.target)) for name, own in tables.items()}
    wanted = {IMAGE: "data.name"} | {each: f"tasks.{name}" for name, each in columns.items()}
    files = find_files(config, root)
    read = [read_file(path, wanted) for path, _ in files]
    cells = {column: join_cells(files, read, column) for column in wanted}
    rows: dict[PartName, list[int]] = {}
    start = 0
    for (path, part), one in zip(files, read, strict=True):
        if part is None:
            raise DataError(
                f"{path.name} must be named after a part, such as train-0.parquet. Rename it."
            )
        rows.setdefault(part, []).extend(range(start, start + one.num_rows))
        start += one.num_rows
    if "train" not in rows or len(rows) == 1:
        raise DataError(
            f"{root} must hold files of train and val, found {', '.join(rows)}. {NYUV2.home}"
        )
    if "test" not in rows:
        rows["test"] = rows.pop("validation")
    numbers = {row: str(number) for number, row in enumerate(rows["train"])}
    rows = complete(rows, numbers.__getitem__, root, config)
    labels = {name: cells[column] for name, column in columns.items()}
    tasks = [_fit(name, own, labels[name], rows["train"]) for name, own in tables.items()]
    return TaskData(
        tasks=tasks,
        parts={part: CellSamples(rows[part], cells[IMAGE], labels, tasks) for part in PARTS},
        fingerprint=digest([[path.name, part, digest_of_file(path)] for path, part in files]),
        describe=Places(cells[IMAGE].places, rows),
    )


def _fit(name: str, table: TaskConfig, cells: Cells, rows: Sequence[int]) -> PixelTask:
    """Make a task; errors name the row."""
    last = ""

    def look() -> Iterator[NDArray[Any]]:
        nonlocal last
        for row in rows:
            last = cells.places[row]
            yield cells.array(row)

    try:
        return fit_pixels(name, look(), {"kind": table.kind, **table.options})
    except LabelError as error:
        raise LabelError(f"{last}: {error}" if last else str(error)) from None
