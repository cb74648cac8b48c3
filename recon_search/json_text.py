"""JSON as files hold it, read within limits: what they say could come from anybody.

Python's own reader takes the last of two equal keys, numbers that are none, and fails on deep
nesting and on long integers in ways of its own.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

LARGEST = 256 * 2**20
"""Bytes of a text, at most."""

DEEPEST = 100
"""Lists and objects within each other, at most."""

LONGEST = 20
"""Characters of an integer, at most: 64 bits and a sign."""


def parse(text: str | bytes, *, finite: bool = True) -> Any:
    """Read JSON.

    Args:
        text: in UTF-8 where it is bytes.
        finite: whether numbers must be; otherwise NaN and Infinity are read as Python writes them.

    Raises:
        ValueError: saying in a few words what is wrong, and where.
    """
    if len(text) > LARGEST:
        raise ValueError(f"it has {len(text):,} bytes, more than {LARGEST:,}")
    if isinstance(text, bytes):
        text = text.decode("utf-8")

    def real(digits: str) -> float:
        value = float(digits)
        if finite and not math.isfinite(value):
            raise ValueError(f"the number {_short(digits)} is not finite")
        return value

    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=real,
            parse_constant=_refuse if finite else float,
        )
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check(value)
    return value


def finite(value: Any) -> Any:
    """Return a value as JSON knows it, which has no number that is not finite: None for those."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, list | tuple) else value


_TOO_DEEP = f"it nests lists and objects more than {DEEPEST} deep"


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"the number {constant} is not finite")


def _integer(digits: str) -> int:
    if len(digits) > LONGEST:
        raise ValueError(f"the integer {_short(digits)} has {len(digits)} digits")
    return int(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"it has the key {_short(twice)!r} twice in one object")
    return found


def _check(value: Any) -> None:
    """Refuse what is nested too deeply, and texts that cannot be written again."""
    level = [[value]]
    for _ in range(DEEPEST + 1):
        inner = [each for container in level for each in container]
        for text in (each for each in inner if isinstance(each, str) and not each.isascii()):
            text.encode()  # half a surrogate pair is no text
        level = [
            [*each, *each.values()] if isinstance(each, dict) else each
            for each in inner
            if isinstance(each, dict | list)
        ]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."
