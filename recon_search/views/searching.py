"""A search while it goes on: what runs, what is done, what is best, what matters."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group
from rich.text import Text

from recon_search.search.importance import importances_of
from recon_search.search.rungs import seeds_of
from recon_search.search.tally import Tally, seconds, tally
from recon_search.views.lines import duration, short, total_line
from recon_search.views.live import live_on
from recon_search.views.trials import (
    describe_best,
    describe_importances,
    describe_split,
    describe_state,
    describe_tally,
)


class SearchDisplay:
    """Progress of a study: what moves on a terminal, a line for each trial that ends elsewhere.

    Args:
        name: of the study.
        total: trials it is to have.
        console: where to write.
    """

    def __init__(self, name: str, total: int, console: Console) -> None:
        self._console = console
        self._name = name
        self._total = total
        self._started = time.monotonic()
        self._begun_with: int | None = None
        self._shown: set[int] = set()
        self._trials: Sequence[FrozenTrial] = ()
        self._matters: tuple[int, dict[str, float]] = 0, {}
        self._lock = threading.Lock()
        self._live = live_on(console, self.draw)

    def start(self) -> None:
        """Show what moves."""
        if self._live is not None:
            self._live.start()

    def stop(self) -> None:
        """Take it away."""
        if self._live is not None:
            self._live.stop()

    def name(self, study: str) -> None:
        """Say which study it is."""
        self._name = study

    def show(self, trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> None:
        """Show where the study stands."""
        now = tally(trials)
        if self._begun_with is None:
            self._begun_with = now.spent
            self._shown = {trial.number for trial in trials if trial.state.is_finished()}
        if self._live is not None:
            if now.complete != self._matters[0]:
                self._matters = now.complete, importances_of(trials, directions)
            with self._lock:
                self._trials = list(trials)
            return
        left = self._left(now)
        rest = "" if left is None else f"; about {duration(left)} left"
        for trial in trials:
            if trial.state.is_finished() and trial.number not in self._shown:
                self._shown.add(trial.number)
                self._console.print(
                    f"trial {trial.number}: {describe_state(trial)}, {describe_split(trial)}. "
                    f"{now.spent}/{self._total}: {describe_tally(now)}; {describe_best(trials)}"
                    f"{rest}",
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )

    def draw(self) -> Group:
        """What the terminal shows now."""
        width, height = self._console.width, self._console.height
        with self._lock:
            trials = self._trials
        now = tally(trials)
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        lines = [_running_line(trial, width) for trial in running[: max(1, height - 6)]]
        told = [describe_tally(now)]
        if trials:
            told.append(describe_best(trials))
        if matters := self._matters[1]:
            told.append("matters: " + describe_importances(matters))
        lines += [Text(_cut(text, width), style="dim", no_wrap=True) for text in told]
        share = min(1.0, now.spent / self._total)
        title = f"search {self._name}".rstrip()
        plain = self._console.options.ascii_only
        lines.append(
            total_line(
                title, now.spent, self._total, "trials", share, self._left(now), width, plain=plain
            )
        )
        return Group(*lines)

    def _left(self, now: Tally) -> float | None:
        done = now.spent - (self._begun_with or 0)
        if not done or now.spent >= self._total:
            return None
        return (time.monotonic() - self._started) / done * (self._total - now.spent)


def _running_line(trial: FrozenTrial, width: int) -> Text:
    """Where a trial stands: as far as it has told."""
    values, seeds = trial.intermediate_values, seeds_of(trial.user_attrs)
    stand = f"epoch {max(values)}: {values[max(values)]:+.2f} %" if values else "begins"
    if seeds:
        stand = f"seed {len(seeds)}: {statistics.fmean(seeds):+.2f} %"
    text = f"trial {trial.number:>3}  {stand:<20}  {duration(seconds(trial)):>10}  "
    return Text(_cut(text + describe_split(trial), width), no_wrap=True)


def _cut(text: str, width: int) -> str:
    return short(text, width) if len(text) > width else text
