"""What is known of data before anything is trained: every image is decoded once."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from recon_search.data.images import Images
from recon_search.data.order import permutation
from recon_search.data.reader import Key
from recon_search.data.registry import find_source
from recon_search.data.source import PARTS, Feed, PartName, Source
from recon_search.errors import DataError
from recon_search.recipe import Recipe
from recon_search.stages.findings import Column, Counts, Examination, describe, overlaps
from recon_search.tasks.segments import Segments
from recon_search.tasks.task import Task

STEP = 256
"""Samples that are taken at once of data that is held in tensors."""

Tell = Callable[[], None]
"""Is called for every image that was looked at."""


class Sample(NamedTuple):
    """What was found at one place."""

    part: PartName
    name: str
    content: str
    targets: Mapping[str, Tensor]


class Looked:
    """Data of a recipe to be looked at; nothing is trained, so no backbone is asked for.

    Args:
        recipe: names the data.

    Raises:
        ReconSearchError: they cannot be read at all.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._source: Source = find_source(recipe.data, recipe.tasks, is_checked=False)
        self._order = (recipe.seed, 0)
        if isinstance(self._source, Images):
            preparation = self._source.reader.preparation
            self.tasks, self.apart = tuple(self._source.data.tasks), self._source.data.is_apart
            self.shape = (preparation.channels, *preparation.size)
        else:
            schema = self._source.schema
            self.tasks, self.shape, self.apart = schema.tasks, schema.shape, schema.apart

    @cached_property
    def samples(self) -> Counts:
        """Number of samples by part."""
        if isinstance(self._source, Images):
            return {part: len(self._source.data.parts[part]) for part in PARTS}
        return {part: sum(self._feed.lengths(part)) for part in PARTS}

    def read(self, unreadable: list[str], tell: Tell) -> Iterator[Sample]:
        """Decode every image; what cannot be read is added to a list."""
        if isinstance(self._source, Images):
            return _read_images(self._source, unreadable, tell)
        return _read_tensors(self._feed, tell)

    def draw(self, n: int) -> Iterator[tuple[Tensor, Mapping[str, Tensor]]]:
        """Yield the first n training images of an epoch, changed at random as they would be in it.

        What cannot be read is left out.
        """
        if not isinstance(self._source, Images):
            for batch in next(self._feed.steps("train", n, self._order)):
                for row, image in enumerate(batch.inputs):
                    yield image, {name: target[row] for name, target in batch.targets.items()}
            return
        for row in permutation(self.samples["train"], self._order).tolist():
            if not n:
                return
            with contextlib.suppress(DataError):
                yield self._source.reader.sample(Key("train", row, self._order))
                n -= 1

    @cached_property
    def _feed(self) -> Feed:
        return self._source.open(torch.device("cpu"))


def examine(looked: Looked, tell: Tell = lambda: None) -> Examination:
    """Read all data once; single samples that cannot be read are listed."""
    unreadable: list[str] = []
    columns = {part: {task.name: Column() for task in looked.tasks} for part in PARTS}
    first: dict[str, Sample] = {}
    doubles: list[tuple[str, str]] = []
    contents: list[str] = []
    repeated = 0
    for number, sample in enumerate(looked.read(unreadable, tell)):
        for task in looked.tasks:
            if task.name in sample.targets:
                target = _shorten(task, sample.targets[task.name])
                columns[sample.part][task.name].add(number, target)
        contents.append(sample.content)
        other = first.setdefault(sample.content, sample)
        if other.part != sample.part:
            doubles.append((other.name, sample.name))
        elif (
            other is not sample
            and sample.part == "train"
            and other.targets.keys() == sample.targets.keys()
        ):
            repeated += 1
    own = {task.name: {part: columns[part][task.name] for part in PARTS} for task in looked.tasks}
    trained: dict[str, frozenset[int] | frozenset[str]] = {}
    for task in looked.tasks:
        numbers = own[task.name]["train"].labelled(task)
        # Of tasks with data of their own a sample is one task's; an image may be several's.
        trained[task.name] = frozenset(contents[n] for n in numbers) if looked.apart else numbers
    return Examination(
        samples=looked.samples,
        shape=looked.shape,
        tasks=[describe(task, own[task.name]) for task in looked.tasks],
        overlaps=overlaps(trained),
        unreadable=unreadable,
        doubles=doubles,
        repeated=repeated,
    )


def _read_images(source: Images, unreadable: list[str], tell: Tell) -> Iterator[Sample]:
    reader = source.reader
    for part in PARTS:
        for index in range(len(source.data.parts[part])):
            try:
                image, targets = reader.open(part, index)
            except DataError as error:
                unreadable.append(str(error))
            else:
                yield Sample(part, source.data.name(part, index), _digest(image), targets)
            tell()


def _read_tensors(feed: Feed, tell: Tell) -> Iterator[Sample]:
    for part in PARTS:
        index = 0
        for step in feed.steps(part, STEP):
            for batch in step:
                for row, image in enumerate(batch.inputs):
                    targets = {name: target[row] for name, target in batch.targets.items()}
                    yield Sample(
                        part, f"sample {index} of the {part} part", _digest(image), targets
                    )
                    index += 1
                    tell()


def _digest(image: Any) -> str:
    """Equal for images of equal pixels, whatever files they come from."""
    pixels = image.cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    found = hashlib.sha256(repr((pixels.shape, pixels.dtype.str)).encode())
    found.update(np.ascontiguousarray(pixels).data)
    return found.hexdigest()


def _shorten(task: Task, target: Tensor) -> Tensor:
    """Return what is kept of a target: of that of pixels how many there are, (n,)."""
    if task.reads != "pyramid":
        return target
    if isinstance(task, Segments):
        known = target[(target >= 0) & (target < task.n_classes)]
        return torch.bincount(known.long(), minlength=task.n_classes)
    return task.n_labels(target[None])[None]
