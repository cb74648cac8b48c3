"""This machine's memory."""

from __future__ import annotations

import os


def total_memory() -> int:
    """Bytes of this machine's memory; beyond all needs where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**63


def is_exhausted(error: BaseException) -> bool:
    """Whether an error says that memory is short, of this machine or of a GPU."""
    is_torchs = type(error).__name__ == "OutOfMemoryError"
    return is_torchs or isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def in_gigabytes(size: int) -> str:
    """Say a number of bytes."""
    return f"{size / 1e9:.3g} GB"
