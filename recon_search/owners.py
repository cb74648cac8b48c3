"""Who works on something: a process of a machine, and whether it is still there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import uuid
from pathlib import Path

PATTERN = r"[0-9a-f]{8}-[0-9]+"
"""What `token` looks like."""


def machine() -> str:
    """What names this machine: its host name, and what tells containers of one name apart."""
    marks = [str(uuid.getnode())]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with contextlib.suppress(OSError):
            marks.append(os.readlink(path) if Path(path).is_symlink() else Path(path).read_text())
    text = json.dumps(marks, separators=(",", ":"))
    return f"{socket.gethostname()}-{_digest(text)[:6]}"


def owner() -> str:
    """What names this process among those of all machines."""
    return f"{machine()}:{os.getpid()}"


def token() -> str:
    """What names this process in the names of files."""
    return f"{_digest(machine())[:8]}-{os.getpid()}"


def is_here(worker: str) -> bool:
    """Whether a process, as `owner` or `token` names it, is or was one of this machine."""
    return _split(worker)[0] in (machine(), _digest(machine())[:8])


def is_gone(worker: str) -> bool:
    """Whether a process, as `owner` or `token` names it, was one of this machine and is no more."""
    return is_here(worker) and not _is_alive(int(_split(worker)[1]))


def _split(worker: str) -> tuple[str, str]:
    host, _, process = worker.rpartition(":" if ":" in worker else "-")
    return host, process


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
