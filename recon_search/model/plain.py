"""Arguments that come from a file of somebody else: plain values that reach for nothing outside."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

LARGEST = 2**13
"""Of a whole number among arguments: depths, widths, sides of images."""

WORD = re.compile(r"[A-Za-z0-9_.+-]{0,64}")
"""What a text among arguments may be: a name, and no path or address."""

OUTSIDE = re.compile(
    r"pretrained|checkpoint|weights|cache|hub|hf_|url|file|path|dir$|scriptable|exportable|no_jit"
)
"""Arguments that reach for something outside, whatever their value."""


class Fault(NamedTuple):
    """An argument that is not to be taken: where it stands, what is wrong, and its value."""

    place: str
    reason: str
    value: Any


def find_fault(arguments: Any) -> Fault | None:
    """Return the first argument of others that is no plain value or reaches outside, if any."""
    faults = (Fault(place, _fault(place, each), each) for place, each in _walk(arguments, "args"))
    return next((found for found in faults if found.reason), None)


def short(value: object) -> str:
    """A value as it is shown."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _walk(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield every value within arguments with its place, outer ones first."""
    yield place, value
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _walk(each, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from _walk(each, f"{place}.{number}")


def _fault(place: str, value: Any) -> str:
    """What is wrong with an argument, in words; empty if nothing is."""
    key = place.rpartition(".")[2]
    if not WORD.fullmatch(key) or OUTSIDE.search(key.lower()):
        return "reaches outside of the network"
    if place == "args":
        return "" if isinstance(value, Mapping) else "must be a table"
    if value is None or isinstance(value, bool | Mapping):
        return ""
    if isinstance(value, int):
        return "" if abs(value) <= LARGEST else f"must be at most {LARGEST}"
    if isinstance(value, float):
        return "" if math.isfinite(value) else "must be finite"
    if isinstance(value, str):
        return "" if WORD.fullmatch(value) else "must be a word"
    if isinstance(value, list | tuple):
        return "" if len(value) <= 64 else "must have 64 entries at most"
    return "must be a plain value"
