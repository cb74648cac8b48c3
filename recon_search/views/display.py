"""Progress on a terminal, plain lines where output is piped."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from recon_search.training.loop import Progress as Step


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
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._overall = self._progress.add_task(title, total=total, note="trainings")

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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
            )
