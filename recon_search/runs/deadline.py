"""When a run is to end by itself: between two epochs, with nothing lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from recon_search.interruption import Stopped


class OutOfTime(Stopped):
    """The time is up."""


@dataclass(frozen=True)
class Deadline:
    """The moment at which a run ends.

    Attributes:
        at: in seconds since the epoch.
        hours: that the run was given.
    """

    at: float
    hours: float

    @classmethod
    def after(cls, hours: float) -> Deadline:
        """Return the deadline that is so many hours away."""
        return cls(now() + 3600 * hours, hours)

    def is_over(self, needed: float = 0.0) -> bool:
        """Whether what takes `needed` seconds would not end in time."""
        return now() + needed > self.at

    def refuses(self) -> bool:
        """Whether nothing may begin any more.

        Every process trains an epoch at least: however short the time, repeated runs get on.
        """
        return self in _worked and self.is_over()


_worked: set[Deadline] = set()
"""Those before which this process has trained an epoch."""


def now() -> float:
    """Seconds since the epoch; equal clocks in all processes of a machine."""
    return time.time()


def in_time(
    deadline: Deadline,
    after_epoch: Callable[[dict[str, Any]], None] | None,
    *,
    known: int,
    last: int,
) -> Callable[[dict[str, Any]], None]:
    """Return what hears of a training's epochs, and ends it where the next would end too late.

    The next epoch is taken to last as long as the one before. At least one is trained.

    Args:
        deadline: of the run.
        after_epoch: hears of them too.
        known: epochs that are not trained but read from a checkpoint.
        last: number of the last epoch.
    """
    before = now()

    def after(record: dict[str, Any]) -> None:
        nonlocal before
        if after_epoch is not None:
            after_epoch(record)
        if record["epoch"] > known:
            _worked.add(deadline)
        took, before = now() - before, now()
        if known < record["epoch"] < last and deadline.is_over(took):
            raise OutOfTime

    return after
