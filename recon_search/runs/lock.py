"""One process at a time in a folder: a lock file with its owner, who touches it while it works.

It needs no more of a file system than that a name is given once (a hard link, or exclusive
creation), that a rename replaces, and times: so it holds over NFS, where `flock` may not. All times
that are compared are the file server's.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from recon_search import json_text, owners
from recon_search.disk import explained, refuse_special
from recon_search.errors import BusyError

FILE = ".lock"

BEAT = 10.0
"""Seconds between two signs of life."""

STALE = 90.0
"""Seconds without one after which the owner of another machine counts as dead."""

REUSED = 3600.0
"""The same for a process of this machine that is there: its number may be another's by now."""

SETTLE = 0.2
"""Seconds after which who takes over a dead one's lock looks whether somebody else did, too."""

POLL = 0.5
"""Seconds between two looks at a lock that is waited for."""

Wait = Callable[[str], None]
"""Told whose lock is waited for, at every look; what it raises ends the waiting."""


@contextlib.contextmanager
def held(folder: Path, work: str, wait: Wait | None = None) -> Iterator[None]:
    """Work in a folder alone.

    The lock of a process of this machine that is gone is taken over at once, that of another
    machine's after `STALE` seconds without a sign of life. Should two processes work in a folder
    after all, as where one stood still for so long, work is done twice and nothing is damaged.

    Args:
        folder: it is made if it is not there.
        work: what is done there, for others to read.
        wait: called while another process works there; None refuses instead.

    Raises:
        BusyError: another process works there.
        FileError: the folder cannot be written to.
    """
    lock = _Lock(folder, work)
    while (other := lock.take()) is not None:
        if wait is None:
            raise BusyError(
                f"{folder} must be worked in by one process at a time, {_describe(other)} works "
                "there. Wait until it ends, end it, or choose another --out."
            )
        wait(_describe(other))
        time.sleep(POLL)
    over = threading.Event()
    threading.Thread(target=lock.beat, args=(over,), daemon=True).start()
    try:
        yield
    finally:
        over.set()
        lock.release()


class _Lock:
    """The lock file of a folder, as one process sees it."""

    def __init__(self, folder: Path, work: str) -> None:
        self._path, self._mark = folder / FILE, uuid.uuid4().hex
        about = {"owner": owners.owner(), "host": socket.gethostname(), "pid": os.getpid()}
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        self._text = json.dumps({**about, "since": since, "work": work, "mark": self._mark})

    def take(self) -> dict[str, Any] | None:
        """Take the lock, or return what it says of who holds it."""
        refuse_special(self._path)
        own = self._path.with_name(f"{FILE}.{owners.token()}.{self._mark[:8]}")
        with explained(self._path.parent, "written", own, self._path, *self._path.parents):
            own.parent.mkdir(parents=True, exist_ok=True)
            own.write_text(self._text)
            try:
                if self._give_name(own):
                    return None
                found = self._read()
                if not self._is_stale(found, own):
                    return found
                if self._read() == found:
                    own.replace(self._path)
            finally:
                own.unlink(missing_ok=True)
        time.sleep(SETTLE)
        found = self._read()
        return None if found.get("mark") == self._mark else found

    def beat(self, over: threading.Event) -> None:
        """Give signs of life until it is over."""
        while not over.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self._path)

    def release(self) -> None:
        """Let go, unless somebody has taken over."""
        with contextlib.suppress(OSError):
            if self._read().get("mark") == self._mark:
                self._path.unlink(missing_ok=True)

    def _give_name(self, own: Path) -> bool:
        """Whether the lock's name could be given to this process's file."""
        try:
            os.link(own, self._path)
        except FileExistsError:
            return own.stat().st_nlink == 2  # NFS: done, and the answer was lost
        except OSError:  # no hard links here
            try:
                file = self._path.open("x")
            except FileExistsError:
                return False
            try:
                with file:
                    file.write(self._text)
            except OSError:  # an empty lock would keep everybody out
                self._path.unlink(missing_ok=True)
                raise
        return True

    def _read(self) -> dict[str, Any]:
        """What the lock says; nothing if it is gone, or not written yet."""
        try:
            found = json_text.parse(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _is_stale(self, found: dict[str, Any], own: Path) -> bool:
        """Whether the owner is dead; `own` was written a moment ago, by the same clock."""
        worker, limit = found.get("owner", ""), STALE
        if isinstance(worker, str) and worker.rpartition(":")[2].isdigit():
            if owners.is_gone(worker):
                return True
            limit = REUSED if owners.is_here(worker) else STALE
        try:
            return own.stat().st_mtime - self._path.lstat().st_mtime > limit
        except FileNotFoundError:  # released a moment ago
            return False


def _describe(found: dict[str, Any]) -> str:
    if not found:
        return "another process"
    return (
        f"process {found.get('pid')} on {found.get('host')} ({found.get('work')}, since "
        f"{found.get('since')})"
    )
