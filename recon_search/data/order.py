"""Which samples make which step: the same for every feed."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recon_search.artefact import digest
from recon_search.data.source import PartName


@dataclass(frozen=True)
class Lane:
    """Samples that one of the batches of every step is taken from.

    Attributes:
        tasks: those that learn from them.
        rows: their places in the part.
        name: draws shuffles of its own; empty where all tasks share one input.
    """

    tasks: tuple[str, ...]
    rows: range
    name: str = ""


@dataclass(frozen=True)
class Pick:
    """A batch, or a process's share of it.

    Attributes:
        lane: that it is taken from.
        places: of its samples, counted from the lane's first.
        order: what its augmentation is drawn by; None changes nothing.
    """

    lane: Lane
    places: slice | Tensor
    order: tuple[int, ...] | None

    @property
    def rows(self) -> slice | Tensor:
        """The places of its samples in the part."""
        first = self.lane.rows.start
        if isinstance(self.places, slice):
            return slice(self.places.start + first, self.places.stop + first)
        return self.places + first if first else self.places

    def listed(self) -> Sequence[int]:
        """The same, one by one."""
        rows = self.rows
        if isinstance(rows, slice):
            return range(rows.start, rows.stop)
        found: list[int] = rows.tolist()
        return found


class Laned(ABC):
    """What every feed says of its steps, which lanes make (see `Feed`)."""

    @abstractmethod
    def lanes_of(self, part: PartName) -> Sequence[Lane]:
        """What steps are taken from."""

    def lengths(self, part: PartName) -> tuple[int, ...]:
        """Number of inputs in a part, one where tasks share them."""
        return tuple(len(lane.rows) for lane in self.lanes_of(part))

    def n_steps(self, part: PartName, size: int, *, shuffled: bool) -> int:
        """Number of steps that `steps` yields."""
        return n_steps(self.lanes_of(part), size, shuffled=shuffled)


def choose(lanes: Sequence[Lane], tasks: Collection[str]) -> tuple[Lane, ...]:
    """Return the lanes that some tasks learn from."""
    return tuple(lane for lane in lanes if not set(tasks).isdisjoint(lane.tasks))


def permutation(n: int, order: Sequence[int | str]) -> Tensor:
    """Shuffle n samples; a function of (seed, epoch) alone, or of what else stands beside them."""
    generator = torch.Generator().manual_seed(int(digest(list(order))[:12], 16))
    return torch.randperm(n, generator=generator)


def n_steps(lanes: Sequence[Lane], size: int, *, shuffled: bool) -> int:
    """Number of steps that lanes make: those of the longest (see `Feed.steps`)."""
    return max(_n_batches(len(lane.rows), size, shuffled=shuffled) for lane in lanes)


def pick(
    lanes: Sequence[Lane],
    size: int,
    order: tuple[int, int] | None,
    share: tuple[int, int],
    device: torch.device | None = None,
) -> Iterator[tuple[Pick, ...]]:
    """Yield for every step its batches, one of each lane that has any left.

    Args:
        lanes: of the part.
        size: of a batch, over all processes; of a shorter lane all of it.
        order: (seed, epoch) shuffles; a lane that is through before the longest is shuffled anew
            and goes on. None takes every sample once, in its place.
        share: of a process (see `Feed.steps`).
        device: where places that are shuffled are wanted; None is the CPU.
    """
    walks = [_walk(lane, size, order, share, device) for lane in lanes]
    for _ in range(n_steps(lanes, size, shuffled=order is not None)):
        found = (next(walk, None) for walk in walks)
        yield tuple(each for each in found if each is not None)


def _walk(
    lane: Lane,
    size: int,
    order: tuple[int, int] | None,
    share: tuple[int, int],
    device: torch.device | None,
) -> Iterator[Pick]:
    """Yield a lane's batches: once, or shuffled without end."""
    n = len(lane.rows)
    if order is None:
        yield from (Pick(lane, span, None) for span in _spans(n, size, share, shuffled=False))
        return
    for number in itertools.count():
        drawn: tuple[int, ...] = order if number == 0 else (*order, number)
        places = permutation(n, (*drawn, lane.name) if lane.name else drawn).to(device)
        for span in _spans(n, size, share, shuffled=True):
            yield Pick(lane, places[span], drawn)


def _n_batches(n: int, size: int, *, shuffled: bool) -> int:
    whole, rest = divmod(n, size)
    if shuffled and whole:
        return whole
    return whole + (rest > 0)


def _spans(n: int, size: int, share: tuple[int, int], *, shuffled: bool) -> Iterator[slice]:
    """Yield for every batch the places of a process's share in the order of the samples."""
    stop = _n_batches(n, size, shuffled=shuffled) * size
    number, n_shares = share
    for start in range(0, min(stop, n), size):
        length = min(size, n - start) // n_shares
        first = start + number * length
        yield slice(first, first + length)
