"""This machine's memory."""

from __future__ import annotations

import os

_WORDS = (
    *("can't allocate memory", "not enough memory", "out of memory"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
)
"""What torch says of memory where it has no error of its own for that: of the CPU, of libraries."""


def total_memory() -> int:
    """Bytes of this machine's memory; beyond all needs where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**63


def is_exhausted(error: BaseException) -> bool:
    """Whether an error says that memory is short, of this machine or of a GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def in_gigabytes(size: int) -> str:
    """Say a number of bytes."""
    return f"{size / 1e9:.3g} GB"
