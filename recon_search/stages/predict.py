"""A finished model's answers for images, in the user's terms."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recon_search.data.gallery import Picture, find_pictures
from recon_search.data.pictures import read_picture
from recon_search.data.transforms import prepare
from recon_search.errors import DataError
from recon_search.model.files import load
from recon_search.model.inputs import input_of
from recon_search.model.network import MultiTaskModel
from recon_search.tasks.registry import create_task
from recon_search.tasks.task import CellTask, Task

Columns = dict[str, list[Any]]
Skip = Callable[[Picture, DataError], None]
THREADS = 8
"""That read images, at most."""


@dataclass(frozen=True)
class Predictor:
    """A model that is shown images as it was in training.

    Attributes:
        model: on its device, in eval mode.
        tasks: in order.
        device: where it is.
        every: whether every class's probability has a column.
    """

    model: MultiTaskModel
    tasks: tuple[Task, ...]
    device: torch.device
    every: bool = False

    @classmethod
    def load(
        cls, directory: str | Path, device: torch.device | None = None, *, every: bool = False
    ) -> Predictor:
        """Load a model directory.

        Raises:
            ArtefactError: there is none, or it does not say how images are made ready.
        """
        device = device or torch.device("cpu")
        model = load(directory).to(device)
        input_of(model.config)
        tasks = tuple(create_task(spec) for spec in model.config["tasks"])
        return cls(model, tasks, device, every)

    def predict(
        self, pictures: Sequence[Picture], batch_size: int = 64, skip: Skip | None = None
    ) -> Iterator[tuple[list[Picture], Columns]]:
        """Yield batch by batch the images that were read, and columns about them.

        Args:
            pictures: in any number; while a batch is computed the next one is read.
            batch_size: images at once.
            skip: hears of what cannot be read, which is then left out.

        Raises:
            DataError: an image cannot be read, and `skip` is None.
        """
        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
            cuts = range(0, len(pictures), batch_size)
            batches = [pictures[start : start + batch_size] for start in cuts]
            ahead: list[Future[Tensor]] = []
            for number, batch in enumerate(batches):
                futures = ahead or [pool.submit(self._read, picture) for picture in batch]
                following = batches[number + 1] if number + 1 < len(batches) else []
                ahead = [pool.submit(self._read, picture) for picture in following]
                try:
                    read, images = _collect(batch, futures, skip)
                except DataError:
                    pool.shutdown(cancel_futures=True)
                    raise
                if images:
                    yield read, self._look(read, torch.stack(images))

    def _read(self, picture: Picture) -> Tensor:
        config = input_of(self.model.config)
        return prepare(read_picture(picture.path, picture.name, config["shape"][0]), config)

    @torch.no_grad()
    def _look(self, read: Sequence[Picture], images: Tensor) -> Columns:
        outputs = self.model(images.to(self.device))
        columns: Columns = {}
        for task in self.tasks:
            for name, values in self._say(task, outputs[task.name].float().cpu()).items():
                _put(columns, f"{task.name} {name}".rstrip() if name else task.name, values)
        return {_free("file", columns): [picture.name for picture in read], **columns}

    def _say(self, task: Task, output: Tensor) -> Mapping[str, list[Any]]:
        """What a task's outputs mean; of a kind that does not say, the numbers themselves."""
        if isinstance(task, CellTask):
            return task.predict(output, every=self.every)
        flat = output.flatten(1).T.tolist()
        return {f"output {index}": column for index, column in enumerate(flat, start=1)}


def predict(
    model: str | Path,
    images: Sequence[str | Path],
    *,
    batch_size: int = 64,
    device: str | torch.device = "cpu",
    every: bool = False,
) -> Columns:
    """Ask a model directory about images: `recon-search predict`, without a file.

    Args:
        model: the directory.
        images: files, folders, patterns, or tables with a column `file`.
        batch_size: images at once.
        device: where they are looked at.
        every: whether to give every class's probability.

    Returns:
        Columns: `file`, and what each task says, under its name and behind it.

    Raises:
        ReconSearchError: one of its subclasses, with one clear line.
    """
    predictor = Predictor.load(model, torch.device(device), every=every)
    found: Columns = {}
    for _, columns in predictor.predict(find_pictures(images), batch_size):
        for name, values in columns.items():
            found.setdefault(name, []).extend(values)
    return found


def _collect(
    batch: Sequence[Picture], futures: Sequence[Future[Tensor]], skip: Skip | None
) -> tuple[list[Picture], list[Tensor]]:
    read, images = [], []
    for picture, future in zip(batch, futures, strict=True):
        try:
            images.append(future.result())
            read.append(picture)
        except DataError as error:
            if skip is None:
                raise
            skip(picture, error)
    return read, images


def _put(columns: Columns, name: str, values: list[Any]) -> None:
    columns[_free(name, columns)] = values


def _free(name: str, columns: Mapping[str, Any]) -> str:
    """A name that no column has: tasks may be called anything."""
    while name in columns:
        name += "_"
    return name
