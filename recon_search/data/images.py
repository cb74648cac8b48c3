"""Images and targets of a `TaskData`, made ready for training: kept where they fit, else streamed.

What is fixed and fits becomes tensors on the device, like a built-in data set. What is random is
drawn from images that are kept decoded, or read anew.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor

from recon_search.data.augmentation import Augmentation
from recon_search.data.order import Lane, Laned, choose
from recon_search.data.reader import Key, Reader, fault
from recon_search.data.resident import Part, ResidentFeed
from recon_search.data.samples import Samples
from recon_search.data.source import PARTS, Feed, Inputs, PartName, Say, Schema, Step, silent
from recon_search.data.stored import Decoded, Stored
from recon_search.data.streamed import StreamedFeed
from recon_search.data.task_data import TaskData
from recon_search.data.transforms import Preparation, Pretraining, decode
from recon_search.data.view import FeedView
from recon_search.errors import DataError, RecipeError
from recon_search.recipe import DataConfig
from recon_search.tasks.task import PixelTask

SMALL = 2**30
"""Bytes of images, and of labels of their pixels, that `cache = "auto"` keeps at most."""

GPU_SHARE = 0.25
"""Share of a GPU's free memory that it takes at most."""

SLACK = 0.5
"""By how much images of fractions may leave [0, 1]: resizing overshoots by less."""

MOST_WORKERS = 8
"""Processes that read images for a GPU where the recipe does not say how many."""

FILLING = 64
"""Images that are read at once to be kept."""


class Images:
    """A `TaskData` as a source.

    Args:
        data: tasks and samples.
        config: how images are made ready and loaded.
        pretraining: how the images were made ready that the backbone's weights know; None takes
            mean and deviation of the training part.
        is_checked: whether the first sample of each part is read, to see that it can be; of tasks
            with data of their own that of each.

    Raises:
        DataError: tasks, parts or the first sample of a part are not as they must be, or nobody
            says how large images are to be.
        RecipeError: the configuration does not fit the images.
    """

    def __init__(
        self,
        data: TaskData,
        config: DataConfig,
        pretraining: Pretraining | None = None,
        *,
        is_checked: bool = True,
    ) -> None:
        data.check()
        self.data, self.config, self._pretraining = data, config, pretraining
        preparation = self._prepare(_first_image(data, is_checked=is_checked))
        is_random = config.augment.is_random
        augmentation = Augmentation(config.augment, preparation) if is_random else None
        self.reader = Reader(data, preparation, augmentation, data.is_apart)
        self.lanes = {part: data.lanes(part) for part in PARTS}
        for part in PARTS if is_checked else ():
            for lane in self.lanes[part]:
                self.reader.sample(Key(part, lane.rows.start))

    @cached_property
    def schema(self) -> Schema:
        """What it holds."""
        preparation = self.reader.preparation
        return Schema(
            tuple(self.data.tasks),
            (preparation.channels, *preparation.size),
            self.reader.find_complete(),
            self.data.fingerprint,
            self.data.is_apart,
        )

    @property
    def known(self) -> Inputs | None:
        """How inputs are made ready, if the pretraining says it; of images not RGB by averages."""
        if self._pretraining is None:
            return None
        mean, std = torch.tensor(self._pretraining.mean), torch.tensor(self._pretraining.std)
        channels = self.reader.preparation.channels
        if len(mean) != channels:
            mean, std = (each.mean().repeat(channels) for each in (mean, std))
        is_levels = self.reader.preparation.dtype == torch.uint8
        return Inputs(mean, std, 255.0 if is_levels else 1.0)

    def open(self, device: torch.device, say: Say = silent) -> ImageFeed:
        """Make it ready to be read; images are read with the first step."""
        return ImageFeed(self, device, say)

    def _prepare(self, first: Any) -> Preparation:
        config, is_tensor = self.config, isinstance(first, Tensor)
        size = config.image_size or self.data.image_size
        if size is None and first is not None and not is_tensor:
            raise DataError(
                "`data.image_size` must say to which height and width images are brought, got "
                "none. Set it, for instance data.image_size = [224, 224]."
            )
        interpolation: str = config.interpolation
        if interpolation == "auto":
            known = self._pretraining
            interpolation = "bilinear" if known is None else known.interpolation
        dtype = torch.float32 if is_tensor and first.is_floating_point() else torch.uint8
        colours = config.augment.color_jitter, config.augment.auto_augment
        if dtype == torch.float32 and any(each is not None for each in colours):
            raise RecipeError(
                "`data.augment` may change colours of images in levels from 0 to 255 only, got "
                "tensors of float32. Leave color_jitter and auto_augment out."
            )
        if dtype == torch.float32 and self._pretraining is not None and first.numel():
            least, most = first.min().item(), first.max().item()
            if least < -SLACK or most > 1 + SLACK:
                raise DataError(
                    "Images of fractions must be from 0 to 1 to be normalised as a backbone's "
                    f"weights want it, the first of training are from {least:.3g} to {most:.3g}. "
                    'Convert them, or set data.statistics = "data".'
                )
        dense = [task.name for task in self.data.tasks if isinstance(task, PixelTask)]
        if config.augment.pad and dense:
            raise RecipeError(
                f"`data.augment.pad` is for labels of whole images, '{dense[0]}' has labels of "
                "pixels, which nobody has drawn outside. Leave it out; `scale` crops at random."
            )
        return Preparation(
            size or (tuple(first.shape[1:]) if is_tensor and first.ndim == 3 else (1, 1)),
            len(first) if is_tensor and first.ndim == 3 else config.channels,
            config.resize,
            config.crop,
            interpolation,
            is_strict=size is None,
            dtype=dtype,
        )


class ImageFeed(Laned):
    """Steps of images, of each part kept or streamed (see `Feed`).

    Args:
        source: of which images.
        device: where batches are.
        say: is told how much is kept, and where.
    """

    def __init__(self, source: Images, device: torch.device, say: Say = silent) -> None:
        self.schema, self.device = source.schema, device
        self._source, self._say = source, say

    @cached_property
    def inputs(self) -> Inputs:
        """How inputs are made ready."""
        found = self._source.known or self._feeds["train"].inputs
        mean, std = found.mean.to(self.device), found.std.to(self.device)
        fitting = self._source.reader.preparation.spec()
        return replace(found, mean=mean, std=std, fitting=fitting)

    def select(self, tasks: Collection[str]) -> Feed:
        """The feed as some of its tasks see it; what is read, is read once for all."""
        return _Chosen(self, tasks) if self.schema.apart else self

    def lanes_of(self, part: PartName) -> Sequence[Lane]:
        """What steps are taken from."""
        return self._source.lanes[part]

    def opened(self, part: PartName) -> Feed:
        """What yields the steps of a part."""
        return self._feeds[part]

    def steps(
        self,
        part: PartName,
        size: int,
        order: tuple[int, int] | None = None,
        *,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[Step]:
        """Cut a part into steps (see `Feed.steps`)."""
        return self._feeds[part].steps(part, size, order, share=share)

    def close(self) -> None:
        """End the processes that read; what is kept stays."""
        for feed in self.__dict__.get("_feeds", {}).values():
            feed.close()

    @cached_property
    def workers(self) -> int:
        """Processes that read."""
        found = self._source.config.workers
        if found is not None:
            return found
        is_idle = self.device.type != "cpu"
        return min(MOST_WORKERS, max(1, (os.cpu_count() or 2) - 1)) if is_idle else 0

    @cached_property
    def _feeds(self) -> Mapping[PartName, Feed]:
        place, reader = self._place(), self._source.reader
        if place is None:
            return dict.fromkeys(PARTS, self._stream(reader))
        kept: dict[PartName, Part] = {}
        samples: dict[PartName, Samples] = {part: reader.data.parts[part] for part in PARTS}
        for part in PARTS:
            if self._is_kept_fitted(part):
                kept[part] = self._fill(part)
                samples[part] = Stored(kept[part])
            elif self._source.config.cache != "auto":
                samples[part] = Decoded(reader, part)
        stream = self._stream(replace(reader, data=replace(reader.data, parts=samples)))
        n_bytes = sum(part.inputs.nbytes for part in kept.values())
        n_bytes += sum(part.nbytes for part in samples.values() if isinstance(part, Decoded))
        self._say(
            f"Images are kept {'in memory' if place.type == 'cpu' else f'on {place}'}: "
            f"{n_bytes / 2**20:,.1f} MiB in each process that trains."
        )
        random = set() if reader.augmentation is None else {"train"}
        resident = {p: own.to(place) for p, own in kept.items() if p not in random}
        if place.type != self.device.type or not resident:
            return dict.fromkeys(PARTS, stream)
        whole = ResidentFeed(self.schema, resident)
        return {part: whole if part in resident else stream for part in PARTS}

    def _place(self) -> torch.device | None:
        """Where images are kept; None keeps none."""
        cache, memory = self._source.config.cache, torch.device("cpu")
        if cache != "auto":
            return {"none": None, "memory": memory, "device": self.device}[cache]
        fitted = [part for part in PARTS if self._is_kept_fitted(part)]
        channels, height, width = self.schema.shape
        size = channels * height * width * self._source.reader.preparation.dtype.itemsize
        dense = [task for task in self.schema.tasks if isinstance(task, PixelTask)]
        size += sum(task.blank((height, width)).nbytes for task in dense)
        needed = size * sum(sum(self.lengths(part)) for part in fitted)
        if needed > SMALL:
            return None
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            return self.device if needed <= GPU_SHARE * free else memory
        return memory

    def _is_kept_fitted(self, part: PartName) -> bool:
        """Whether a part's images can be kept at their last size: random crops need them whole."""
        augmentation = self._source.reader.augmentation
        return part != "train" or augmentation is None or not augmentation.config.crops

    def _stream(self, reader: Reader) -> StreamedFeed:
        lanes = self._source.lanes
        return StreamedFeed(self.schema, reader, self.device, self.workers, lanes=lanes)

    def _fill(self, part: PartName) -> Part:
        """Read all images of a part into memory, as they are before anything random."""
        source, lanes = self._source, self.lanes_of(part)
        cpu, dtype = torch.device("cpu"), source.reader.preparation.dtype
        feed = StreamedFeed(self.schema, source.reader, cpu, self.workers)
        inputs = torch.empty(lanes[-1].rows.stop, *self.schema.shape, dtype=dtype)
        targets: dict[str, list[Tensor]] = {name: [] for name in self.schema.names}
        start = 0
        for lane in lanes:
            for (batch,) in replace(feed, lanes={part: (lane,)}).steps(part, FILLING):
                inputs[start : start + len(batch.inputs)] = batch.inputs
                start += len(batch.inputs)
                for name, target in batch.targets.items():
                    targets[name].append(target.clone())
        feed.close()
        return Part(inputs, {name: torch.cat(found) for name, found in targets.items()}, lanes)


@dataclass(frozen=True)
class _Chosen(Laned, FeedView):
    """Images as some tasks see them.

    Attributes:
        tasks: names of those.
    """

    feed: ImageFeed
    tasks: Collection[str]

    def select(self, tasks: Collection[str]) -> Self:
        """The images as other tasks see them."""
        return replace(self, tasks=tasks)

    def steps(
        self,
        part: PartName,
        size: int,
        order: tuple[int, int] | None = None,
        *,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[Step]:
        """Cut a part into steps (see `Feed.steps`)."""
        return self.feed.opened(part).select(self.tasks).steps(part, size, order, share=share)

    def lanes_of(self, part: PartName) -> Sequence[Lane]:
        """What steps are taken from."""
        return choose(self.feed.lanes_of(part), self.tasks)


def _first_image(data: TaskData, *, is_checked: bool) -> Any:
    """The first training image, of whatever kind; None where there is no pair to take it from.

    Unless it is checked, the first that can be read.
    """
    for index in range(len(data.parts["train"])):
        try:
            found = data.parts["train"][index]
            image = found[0] if isinstance(found, tuple | list) and len(found) == 2 else None
            return decode(image, 1) if isinstance(image, Image.Image) else image
        except Exception as error:
            if is_checked:
                raise fault(data, "train", index, error) from None
    return None
