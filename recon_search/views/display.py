"""A run as a person at a terminal hears of it; plain lines where output is piped."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from rich.console import Console, Group
from rich.text import Text

from recon_search.disk import in_one_line
from recon_search.runs.listener import Listener
from recon_search.training.loop import Progress
from recon_search.training.stopping import Record
from recon_search.views.lines import duration, epoch_line, short, total_line, training_line
from recon_search.views.live import live_on
from recon_search.views.searching import SearchDisplay

Level = Literal["quiet", "normal", "verbose"]

SILENCE = 60.0
"""Seconds after which a finished epoch is worth a line where trainings have lines."""

LONGEST_NAME = 40


class ConsoleListener(Listener):
    """What is under way on a terminal, and what is done as lines elsewhere.

    Args:
        console: where to write.
        level: `quiet` shows warnings alone, `verbose` every epoch.
    """

    def __init__(self, console: Console, level: Level = "normal") -> None:
        self._console = console
        self._level = level
        self._display: Display | SearchDisplay | None = None
        self._later = 0

    def expect(self, later: int) -> None:
        """Count with what is to come."""
        self._later = later

    def begin(self, title: str, total: int) -> None:
        """Show all trainings, or all trials of a search."""
        if self._level == "quiet":
            return
        if title == "search":
            self._display = SearchDisplay("", total, self._console)
        else:
            is_verbose = self._level == "verbose"
            self._display = Display(title, total, self._console, self._later, verbose=is_verbose)
        self._display.start()

    def start(self, name: str) -> None:
        """Show that a training begins."""
        if isinstance(self._display, Display):
            self._display.begin(name)

    def step(self, name: str, progress: Progress) -> None:
        """Show where one training stands."""
        if isinstance(self._display, Display):
            self._display.step(name, progress)

    def epoch(self, name: str, record: Record) -> None:
        """Show a finished epoch, where it is worth a line."""
        if isinstance(self._display, Display):
            self._display.epoch(name, record)

    def finish(self, name: str, seconds: float) -> None:
        """Count a training as done."""
        if isinstance(self._display, Display):
            self._display.finish(name, seconds)

    def end(self) -> None:
        """Take away what moves."""
        if self._display is not None:
            self._display.stop()
            self._display = None

    def say(self, text: str) -> None:
        """Print a sentence."""
        if self._level != "quiet" or text.startswith("Warning"):
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


@dataclass
class _Training:
    """One that is under way.

    Attributes:
        progress: where it stands; None before its first report.
        first: step of its first report here, and when that was.
        epochs: that were trained here.
    """

    progress: Progress | None = None
    first: tuple[int, float] = (0, 0.0)
    epochs: int = 0

    def left(self) -> float | None:
        """Seconds that it still takes, once two reports tell how fast it is."""
        now = self.progress
        if now is None or now.step <= self.first[0]:
            return None
        each = (time.perf_counter() - self.first[1]) / (now.step - self.first[0])
        return each * (now.n_steps - now.step)

    def share(self) -> float:
        """Part of it that is done."""
        return 0.0 if self.progress is None else self.progress.step / self.progress.n_steps

    def share_here(self) -> float:
        """Part of it that was done since it was first heard of."""
        if self.progress is None:
            return 0.0
        return (self.progress.step - self.first[0]) / self.progress.n_steps


class Display:
    """A line for every training that is under way and one for all; elsewhere one for what is done.

    Args:
        title: what is being done.
        total: number of trainings.
        console: where to write.
        later: trainings that other stages have to do afterwards, about.
        verbose: a line for every epoch.
    """

    def __init__(
        self, title: str, total: int, console: Console, later: int = 0, *, verbose: bool = False
    ) -> None:
        self.console = console
        self.done = 0
        self.total = total
        self._later = later
        self._known = 0
        self._title = title
        self._verbose = verbose
        self._started = self._spoke = time.perf_counter()
        self._under_way: dict[str, _Training] = {}
        self._lock = threading.Lock()
        self._live = live_on(console, self.draw)

    def start(self) -> None:
        """Show what moves."""
        if self._live is not None:
            self._live.start()

    def stop(self) -> None:
        """Take it away, and say what was done."""
        if self._live is not None:
            self._live.stop()
            if self.done == self.total and self.done > self._known:
                elapsed = duration(time.perf_counter() - self._started)
                self._print(f"{self._title}: {_trainings(self.total)} in {elapsed}")

    def begin(self, name: str) -> None:
        """Show that a training begins; nothing is known of it yet."""
        with self._lock:
            self._under_way.setdefault(name, _Training())

    def step(self, name: str, step: Progress) -> None:
        """Show where one training stands."""
        with self._lock:
            own = self._under_way.setdefault(name, _Training())
            if own.progress is None:
                own.first = step.step, time.perf_counter()
            own.progress = step

    def epoch(self, name: str, record: Record) -> None:
        """Say that an epoch is done: always where there is one training, or if asked to."""
        with self._lock:
            own = self._under_way.setdefault(name, _Training())
            own.epochs += 1
            n_epochs = 0 if own.progress is None else own.progress.n_epochs
        is_silent = time.perf_counter() - self._spoke > SILENCE
        if self._verbose or (self._live is None and (self.total == 1 or is_silent)):
            self._print(epoch_line(self._title, name, record, n_epochs))

    def finish(self, name: str, seconds: float) -> None:
        """Count a training as done; one of which nothing was heard was done before."""
        with self._lock:
            own = self._under_way.pop(name, None)
            is_known = own is None or (own.progress is None and not own.epochs)
            self.done += 1
            self._known += is_known
        if self._live is not None:
            return
        left = self.left()
        more = "" if left is None else f", about {duration(left)} left"
        took = "known" if is_known else f"{seconds:.1f} s"
        self._print(f"{self._title} {self.done}/{self.total}: {in_one_line(name)} ({took}{more})")

    def left(self) -> float | None:
        """Seconds that all trainings still take, those of later stages too; None: nobody knows."""
        here = self.done - self._known + sum(own.share_here() for own in self._under_way.values())
        rest = self._later + self.total - self._share()
        if not rest:
            return 0.0
        elapsed = time.perf_counter() - self._started
        return elapsed / here * rest if here > 0 else None

    def draw(self) -> Group:
        """What the terminal shows now."""
        width, height = self.console.width, self.console.height
        plain = self.console.options.ascii_only
        with self._lock:
            rows = list(self._under_way.items())
            share, left = self._share(), self.left()
            done, total = self.done, self.total
        shown = rows[: max(1, height - 3)]
        names = max((len(in_one_line(name)) for name, _ in shown), default=0)
        names = min(names, LONGEST_NAME, max(16, width // 3))
        has_tasks = any(len(own.progress.losses) > 1 for _, own in rows if own.progress)
        lines = [
            Text(short(f"{name}  begins", width), no_wrap=True)
            if own.progress is None
            else training_line(
                name,
                own.progress,
                own.left(),
                width,
                name_width=names,
                with_tasks=has_tasks,
                plain=plain,
            )
            for name, own in shown
        ]
        if len(shown) < len(rows):
            lines.append(Text(f"and {len(rows) - len(shown)} more", style="dim"))
        later = f" and about {self._later} later" if self._later else ""
        unit = ("training" if total == 1 else "trainings") + later
        part = share / max(1, total + self._later)
        return Group(
            *lines, total_line(self._title, done, total, unit, part, left, width, plain=plain)
        )

    def _share(self) -> float:
        return self.done + sum(own.share() for own in self._under_way.values())

    def _print(self, text: str) -> None:
        self._spoke = time.perf_counter()
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def _trainings(number: int) -> str:
    return "1 training" if number == 1 else f"{number} trainings"
