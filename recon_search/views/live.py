"""What moves on a terminal, and is taken away in the end; nothing where output is piped."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console, RenderableType
from rich.live import Live

RATE = 4
"""The terminal is drawn so many times a second."""


def live_on(console: Console, draw: Callable[[], RenderableType]) -> Live | None:
    """Return what draws anew on a terminal, not yet started; None where there is none."""
    if not console.is_terminal or console.is_dumb_terminal:
        return None
    return Live(
        console=console,
        refresh_per_second=RATE,
        transient=True,
        get_renderable=draw,
        vertical_overflow="crop",
    )
