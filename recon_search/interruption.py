"""How work ends before it is done: in order, with everything that was done on disk.

SIGINT, SIGTERM and SIGHUP are noted while a training takes steps; it ends the step, writes a
checkpoint and raises `Interrupted`. Elsewhere they raise it at once, and so does a second one.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

AGAIN = 1.0
"""Seconds after which a second signal is a second wish: a terminal and a parent tell it at once."""


class Stopped(BaseException):
    """Work ends before it is done; all that was done is on disk, and it says what is left."""


class Interrupted(Stopped):
    """A signal asked for it.

    Attributes:
        signal: its number; commands exit with 128 more.
    """

    signal: int = signal.SIGINT

    @classmethod
    def by(cls, number: int) -> Interrupted:
        """Return what stands for a signal."""
        self = cls()
        self.signal = number
        return self


_noted: int | None = None
_noted_at = 0.0
_depth = 0


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Hear `SIGNALS` in a block; in the main thread, else it changes nothing."""
    global _noted, _depth
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _noted, _depth = None, 0
    before = {number: signal.getsignal(number) for number in SIGNALS}
    listen()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _noted = None


@contextlib.contextmanager
def in_order() -> Iterator[None]:
    """Note signals in a block that looks for them by `check`; what came too late is raised."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
    if not _depth:
        check()


def listen(*, notes: bool = False) -> None:
    """Hear `SIGNALS` from now on; `nohup` keeps its word.

    Args:
        notes: a first one is noted wherever it comes, as by a process that works for another, which
            is to end between two pieces of work and not while it imports or waits for one.
    """
    global _depth
    _depth += notes
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _hear)


def tell(number: int) -> None:
    """Note a signal that another process was given."""
    global _noted, _noted_at
    if _noted is None:
        _noted, _noted_at = number, time.monotonic()


def is_asked() -> bool:
    """Whether a signal was noted."""
    return _noted is not None


def check() -> None:
    """End here if a signal was noted.

    Raises:
        Interrupted: it was.
    """
    if _noted is not None:
        raise Interrupted.by(_noted)


def _hear(number: int, frame: FrameType | None) -> None:
    is_second = _noted is not None and time.monotonic() - _noted_at > AGAIN
    tell(number)
    if not _depth or is_second:
        raise Interrupted.by(number)
