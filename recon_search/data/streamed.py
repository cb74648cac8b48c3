"""Data that is read while it is used: torch's loader, with or without processes of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch.utils.data import DataLoader

from recon_search.data.order import Lane, Laned, choose, pick
from recon_search.data.reader import Fault, Key, Loaded, Reader
from recon_search.data.source import Batch, Inputs, PartName, Schema, Step
from recon_search.data.statistics import Statistics
from recon_search.errors import DataError

PREFETCHED = 4
"""Steps that each process reads ahead."""

MEASURED = 64
"""Images that are read at once where nothing but statistics is wanted."""


class _Steps:
    """The keys of the steps to come, which a loader reads when it is iterated over."""

    def __init__(self) -> None:
        self.keys: Sequence[Sequence[Key]] = ()

    def __iter__(self) -> Iterator[Sequence[Key]]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


class _Loader:
    """A loader whose processes live from one pass to the next."""

    def __init__(self, reader: Reader, workers: int, *, pin: bool, lasting: bool = True) -> None:
        self._steps = _Steps()
        self.is_busy = False
        # Of its own generator: the order and dropout of a training must not change with it.
        processes: dict[str, Any] = {}
        if workers:
            processes = {"persistent_workers": lasting, "prefetch_factor": PREFETCHED}
        self._loader: DataLoader[Any] = DataLoader(
            reader,  # type: ignore[arg-type]
            batch_sampler=self._steps,  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=pin,
            generator=torch.Generator().manual_seed(0),
            **processes,
        )

    def load(self, keys: Sequence[Sequence[Key]]) -> Iterator[Loaded]:
        self.is_busy = True
        self._steps.keys = keys
        try:
            for loaded in self._loader:
                if isinstance(loaded, Fault):
                    raise DataError(loaded.text)
                yield loaded
        finally:
            self.is_busy = False


@dataclass(frozen=True)
class StreamedFeed(Laned):
    """Steps of samples that are read, made ready and changed at random in time for them.

    Attributes:
        schema: what it holds.
        reader: reads the samples of all parts.
        device: where batches are.
        workers: processes that read; 0 reads in this one.
        known: how inputs are made ready; None takes the training part's mean and deviation.
        lanes: by part, what steps are taken from; of a part that is left out all tasks share every
            sample.
        tasks: whose inputs are shown; None shows all.
    """

    schema: Schema
    reader: Reader
    device: torch.device
    workers: int = 0
    known: Inputs | None = None
    lanes: Mapping[PartName, Sequence[Lane]] = field(default_factory=dict)
    tasks: Collection[str] | None = None
    _loaders: list[_Loader] = field(default_factory=list, repr=False, compare=False)

    @cached_property
    def inputs(self) -> Inputs:
        """How inputs are made ready; what is not known takes a pass over the training part."""
        if self.known is not None:
            return self.known
        statistics = Statistics()
        for step in replace(self, tasks=None).steps("train", MEASURED):
            for batch in step:
                statistics.update(batch.inputs)
        found = statistics.inputs()
        return replace(found, mean=found.mean.to(self.device), std=found.std.to(self.device))

    def select(self, tasks: Collection[str]) -> StreamedFeed:
        """The feed as some of its tasks see it; the processes that read are the same."""
        return replace(self, tasks=tasks) if self.schema.apart else self

    def steps(
        self,
        part: PartName,
        size: int,
        order: tuple[int, int] | None = None,
        *,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[Step]:
        """Cut a part into steps (see `Feed.steps`).

        Raises:
            DataError: a sample cannot be read; names it.
        """
        picks = [
            (each, each is step[-1])
            for step in pick(self.lanes_of(part), size, order, share)
            for each in step
        ]
        keys = [[Key(part, row, each.order) for row in each.listed()] for each, _ in picks]
        batches: list[Batch] = []
        for (each, is_last), loaded in zip(picks, self._free().load(keys), strict=True):
            inputs, targets = loaded
            own = {name: self._move(targets[name]) for name in each.lane.tasks if name in targets}
            batches.append(Batch(self._move(inputs), own))
            if is_last:
                yield tuple(batches)
                batches = []

    def close(self) -> None:
        """End the processes; the next step starts them anew."""
        self._loaders.clear()

    def lanes_of(self, part: PartName) -> Sequence[Lane]:
        """What steps are taken from."""
        everything = Lane(self.schema.names, range(len(self.reader.data.parts[part])))
        lanes = self.lanes.get(part, (everything,))
        return lanes if self.tasks is None else choose(lanes, self.tasks)

    def _free(self) -> _Loader:
        """The loader whose processes last; another for what is read beside it."""
        pin = self.device.type == "cuda"
        if not self._loaders:
            self._loaders.append(_Loader(self.reader, self.workers, pin=pin))
        if self._loaders[0].is_busy:
            return _Loader(self.reader, self.workers, pin=pin, lasting=False)
        return self._loaders[0]

    def _move(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.device, non_blocking=True)


def _as_it_is(loaded: Any) -> Any:
    return loaded
