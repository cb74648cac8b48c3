"""A finished model's answers for images, in the user's terms."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from recon_search.data.gallery import Picture, find_pictures
from recon_search.data.pictures import read_picture
from recon_search.data.restoring import restore
from recon_search.data.transforms import Preparation, preparation_of, prepare
from recon_search.errors import DataError
from recon_search.model.files import load
from recon_search.model.inputs import input_of
from recon_search.model.network import MultiTaskModel
from recon_search.tasks import losses
from recon_search.tasks.normals import Normals
from recon_search.tasks.registry import create_task
from recon_search.tasks.task import CellTask, PixelTask, Task

Columns = dict[str, list[Any]]
Skip = Callable[[Picture, DataError], None]
MapSize = Literal["network", "image"]
"""Of maps: as large as what the network saw, or brought back to each image."""

THREADS = 8
"""That read images, at most."""


class Read(NamedTuple):
    """An image made ready, and (H, W) of it before."""

    image: Tensor
    size: tuple[int, int]


@dataclass(frozen=True)
class Predictor:
    """A model that is shown images as it was in training.

    Attributes:
        model: on its device, in eval mode.
        tasks: in order.
        device: where it is.
        every: whether every class's probability has a column.
        map_size: of what is said of every pixel.
    """

    model: MultiTaskModel
    tasks: tuple[Task, ...]
    device: torch.device
    every: bool = False
    map_size: MapSize = "network"

    @classmethod
    def load(
        cls,
        directory: str | Path,
        device: torch.device | None = None,
        *,
        every: bool = False,
        map_size: MapSize = "network",
    ) -> Predictor:
        """Load a model directory.

        Raises:
            ArtefactError: there is none, or it does not say how images are made ready.
        """
        device = device or torch.device("cpu")
        model = load(directory).to(device)
        input_of(model.config)
        tasks = tuple(create_task(spec) for spec in model.config["tasks"])
        return cls(model, tasks, device, every, map_size)

    @property
    def dense(self) -> tuple[Task, ...]:
        """The tasks that say something of every pixel."""
        return tuple(task for task in self.tasks if task.reads == "pyramid")

    @cached_property
    def preparation(self) -> Preparation:
        """How images are brought to the network's size."""
        return preparation_of(input_of(self.model.config))

    def seen(self, picture: Image.Image) -> Image.Image:
        """Return what of a picture maps lie on: all of it, or what the network sees."""
        is_whole = self.map_size == "image" or not self.dense
        found: Image.Image = picture if is_whole else self.preparation.bring(picture)
        return found

    def predict(
        self, pictures: Sequence[Picture], batch_size: int = 64, skip: Skip | None = None
    ) -> Iterator[tuple[list[Picture], Columns]]:
        """Yield batch by batch the images that were read, and columns about them.

        Of a task of pixels the column named like it holds tensors, as `_map` returns them.

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
            ahead: list[Future[Read]] = []
            for number, batch in enumerate(batches):
                futures = ahead or [pool.submit(self._read, picture) for picture in batch]
                following = batches[number + 1] if number + 1 < len(batches) else []
                ahead = [pool.submit(self._read, picture) for picture in following]
                try:
                    pictures_read, read = _collect(batch, futures, skip)
                except DataError:
                    pool.shutdown(cancel_futures=True)
                    raise
                if read:
                    yield pictures_read, self._look(pictures_read, read)

    def _read(self, picture: Picture) -> Read:
        config = input_of(self.model.config)
        found = read_picture(picture.path, picture.name, config["shape"][0])
        return Read(prepare(found, config), (found.height, found.width))

    @torch.no_grad()
    def _look(self, pictures: Sequence[Picture], read: Sequence[Read]) -> Columns:
        images = torch.stack([each.image for each in read])
        outputs = self.model(images.to(self.device))
        sizes = [each.size for each in read]
        columns: Columns = {}
        own = [task.name for task in self.tasks]  # a column so called is its task's
        for task in self.tasks:
            for name, values in self._say(task, outputs[task.name].float().cpu(), sizes).items():
                called = _free(f"{task.name} {name}", [*own, *columns]) if name else task.name
                columns[called] = values
        return {_free("file", columns): [picture.name for picture in pictures], **columns}

    def _say(
        self, task: Task, output: Tensor, sizes: Sequence[tuple[int, int]]
    ) -> Mapping[str, list[Any]]:
        """What a task's outputs mean; of a kind that does not say, the numbers themselves."""
        if task.reads == "pyramid":
            found = task.decode(output) if isinstance(task, PixelTask) else output
            return {
                "": [self._map(task, own, size) for own, size in zip(found, sizes, strict=True)]
            }
        if isinstance(task, CellTask):
            return task.predict(output, every=self.every)
        flat = output.flatten(1).T.tolist()
        return {f"output {index}": column for index, column in enumerate(flat, start=1)}

    def _map(self, task: Task, found: Tensor, size: tuple[int, int]) -> Tensor:
        """Return what is said of an image's pixels in the size that is asked for."""
        if self.map_size == "network":
            return found
        whole = restore(found, self.preparation, size)
        return losses.directions(whole[None])[0] if isinstance(task, Normals) else whole


def predict(
    model: str | Path,
    images: Sequence[str | Path],
    *,
    batch_size: int = 64,
    device: str | torch.device = "cpu",
    every: bool = False,
    map_size: MapSize = "network",
) -> Columns:
    """Ask a model directory about images: `recon-search predict`, without a file.

    Args:
        model: the directory.
        images: files, folders, patterns, or tables with a column `file`.
        batch_size: images at once.
        device: where they are looked at.
        every: whether to give every class's probability.
        map_size: of what is said of every pixel: that of what the network saw, or "image", brought
            back to each image (see `data.restoring.restore`).

    Returns:
        Columns: `file`, and what each task says, under its name and behind it; of a task of pixels
        a tensor an image, (H, W) or (n, H, W), all of which must fit into memory.

    Raises:
        ReconSearchError: one of its subclasses, with one clear line.
    """
    predictor = Predictor.load(model, torch.device(device), every=every, map_size=map_size)
    found: Columns = {}
    for _, columns in predictor.predict(find_pictures(images), batch_size):
        for name, values in columns.items():
            found.setdefault(name, []).extend(values)
    return found


def _collect(
    batch: Sequence[Picture], futures: Sequence[Future[Read]], skip: Skip | None
) -> tuple[list[Picture], list[Read]]:
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


def _free(name: str, taken: Collection[str]) -> str:
    """A name that no column has: tasks may be called anything."""
    while name in taken:
        name += "_"
    return name
