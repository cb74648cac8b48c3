"""Who is told how work goes. Nothing below `cli/` and `views/` knows a console."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from recon_search.training.loop import Progress
from recon_search.training.stopping import Record

News = Literal["start"] | Progress | Record
"""Of a training: that it is begun or looked up, where it stands, an epoch's record (see `fit`)."""


class Listener:
    """Hears of everything and does nothing; overwrite what should be shown.

    Examples:
        >>> class Loud(Listener):
        ...     def finish(self, name, seconds):
        ...         print(f"{name} took {seconds:.0f} s")
        >>> Loud().finish("joint, seed 0", 61.2)
        joint, seed 0 took 61 s
    """

    def expect(self, later: int) -> None:
        """After what begins next, about so many trainings are to come."""

    def begin(self, title: str, total: int) -> None:
        """So many trainings begin, for the purpose `title` names."""

    def start(self, name: str) -> None:
        """A training of that name is begun, or is looked up where it was done before."""

    def step(self, name: str, progress: Progress) -> None:
        """A training of that name has come so far."""

    def epoch(self, name: str, record: Record) -> None:
        """A training of that name has trained an epoch, whose record is that of `fit`."""

    def finish(self, name: str, seconds: float) -> None:
        """A training of that name is done, which took so long, now or before."""

    def end(self) -> None:
        """What `begin` began is over, well or not."""

    def say(self, text: str) -> None:
        """One sentence for a person: a finding or a warning."""

    def study(
        self, name: str, total: int, trials: Sequence[Any], directions: Sequence[Any]
    ) -> None:
        """A study that is to have `total` trials stands so."""

    def apart(self, stage: str) -> Listener:
        """Return who hears of a stage's trainings in another process than this; it pickles."""
        return SILENT

    def hear(self, name: str, news: News) -> None:
        """Call `start`, `step` or `epoch`."""
        if isinstance(news, str):
            self.start(name)
        elif isinstance(news, Progress):
            self.step(name, news)
        else:
            self.epoch(name, news)

    @contextmanager
    def over(self, title: str, total: int) -> Iterator[None]:
        """Call `begin`, and `end` however the block is left."""
        try:
            self.begin(title, total)
            yield
        finally:
            self.end()


class Listeners(Listener):
    """Several that hear the same, in order.

    Args:
        listeners: who hears.
    """

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)

    def expect(self, later: int) -> None:
        """Tell all."""
        for each in self._listeners:
            each.expect(later)

    def begin(self, title: str, total: int) -> None:
        """Tell all."""
        for each in self._listeners:
            each.begin(title, total)

    def start(self, name: str) -> None:
        """Tell all."""
        for each in self._listeners:
            each.start(name)

    def step(self, name: str, progress: Progress) -> None:
        """Tell all."""
        for each in self._listeners:
            each.step(name, progress)

    def epoch(self, name: str, record: Record) -> None:
        """Tell all."""
        for each in self._listeners:
            each.epoch(name, record)

    def finish(self, name: str, seconds: float) -> None:
        """Tell all."""
        for each in self._listeners:
            each.finish(name, seconds)

    def end(self) -> None:
        """Tell all."""
        for each in self._listeners:
            each.end()

    def apart(self, stage: str) -> Listener:
        """Ask all."""
        return Listeners([each.apart(stage) for each in self._listeners])

    def say(self, text: str) -> None:
        """Tell all."""
        for each in self._listeners:
            each.say(text)

    def study(
        self, name: str, total: int, trials: Sequence[Any], directions: Sequence[Any]
    ) -> None:
        """Tell all."""
        for each in self._listeners:
            each.study(name, total, trials, directions)


SILENT = Listener()
