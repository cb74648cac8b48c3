"""How far a command has come that counts things: a bar on a terminal, lines where it is piped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

EVERY = 10.0
"""Seconds between two lines where there is no terminal."""


@contextmanager
def counting(
    title: str, what: str, console: Console | None = None
) -> Iterator[Callable[[int, int], None]]:
    """Yield what is to be called with so many done and how many there are.

    It writes to the error stream, so that what a command prints may be piped on.

    Args:
        title: the command.
        what: it counts.
        console: where to write instead.
    """
    console = console or Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(what, markup=False),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    overall = bar.add_task(title, total=None)
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        bar.update(overall, completed=done, total=total)
        if not console.is_terminal and time.monotonic() - last >= EVERY:
            last = time.monotonic()
            line = f"{title}: {done:,} of {total:,} {what}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)

    with bar:
        yield tell
