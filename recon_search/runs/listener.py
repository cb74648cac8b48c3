"""Who is told how work goes. Nothing below `cli/` and `views/` knows a console."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from recon_search.training.loop import Progress


class Listener:
    """Hears of everything and does nothing; overwrite what should be shown."""

    def begin(self, title: str, total: int) -> None:
        """So many trainings begin, for the purpose `title` names."""

    def step(self, name: str, progress: Progress) -> None:
        """A training of that name has come so far."""

    def finish(self, name: str, seconds: float) -> None:
        """A training of that name is done, which took so long."""

    def end(self) -> None:
        """What `begin` began is over, well or not."""

    def say(self, text: str) -> None:
        """One sentence for a person: a finding or a warning."""

    def study(
        self, name: str, total: int, trials: Sequence[Any], directions: Sequence[Any]
    ) -> None:
        """A study that is to have `total` trials stands so."""

    @contextmanager
    def over(self, title: str, total: int) -> Iterator[None]:
        """Call `begin`, and `end` however the block is left."""
        self.begin(title, total)
        try:
            yield
        finally:
            self.end()


SILENT = Listener()
