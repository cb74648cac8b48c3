"""A run as a person at a terminal hears of it; plain lines where output is piped."""

from __future__ import annotations

import time
from collections.abc import Sequence

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from recon_search.runs.listener import Listener
from recon_search.training.loop import Progress as Step
from recon_search.views.trials import SearchDisplay


class ConsoleListener(Listener):
    """Bars for what is under way, on a terminal; lines for what is done, elsewhere.

    Args:
        console: where to write.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._display: Display | SearchDisplay | None = None

    def begin(self, title: str, total: int) -> None:
        """Show a bar for all trainings, or for all trials of a search."""
        if title == "search":
            self._display = SearchDisplay("", total, self._console)
        else:
            self._display = Display(title, total, self._console)
        self._display.start()

    def step(self, name: str, progress: Step) -> None:
        """Show where one training stands."""
        if isinstance(self._display, Display):
            self._display.step(name, progress)

    def finish(self, name: str, seconds: float) -> None:
        """Count a training as done."""
        if isinstance(self._display, Display):
            self._display.finish(name, seconds)

    def end(self) -> None:
        """Take the bars away."""
        if self._display is not None:
            self._display.stop()
            self._display = None

    def say(self, text: str) -> None:
        """Print a sentence."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def study(
        self,
        name: str,
        total: int,
        trials: Sequence[FrozenTrial],
        directions: Sequence[StudyDirection],
    ) -> None:
        """Show where a study stands."""
        if isinstance(self._display, SearchDisplay):
            self._display.name(name)
            self._display.show(trials, directions)


class Display:
    """A bar for all trainings and one for each that is under way.

    Args:
        title: what is being done.
        total: number of trainings.
        console: where to write.
    """

    def __init__(self, title: str, total: int, console: Console) -> None:
        self.console = console
        self.done = 0
        self.total = total
        self._title = title
        self._started = time.perf_counter()
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description:<28}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._overall = self._progress.add_task(title, total=total, note="trainings")

    def start(self) -> None:
        """Show the bars."""
        self._progress.start()

    def stop(self) -> None:
        """Take them away."""
        self._progress.stop()

    def step(self, label: str, step: Step) -> None:
        """Show where one training stands."""
        if label not in self._bars:
            self._bars[label] = self._progress.add_task(label, total=step.n_steps, note="")
        note = f"loss {step.loss:.3f}  {step.images_per_second:,.0f} images/s"
        self._progress.update(self._bars[label], completed=step.step, note=note)

    def finish(self, label: str, seconds: float) -> None:
        """Count a training as done."""
        self.done += 1
        if label in self._bars:
            self._progress.remove_task(self._bars.pop(label))
        self._progress.advance(self._overall)
        if not self.console.is_terminal:
            elapsed = time.perf_counter() - self._started
            left = elapsed / self.done * (self.total - self.done)
            self.console.print(
                f"{self._title} {self.done}/{self.total}: {label} ({seconds:.1f} s, "
                f"about {left:.0f} s left)",
                highlight=False,
                markup=False,
            )
