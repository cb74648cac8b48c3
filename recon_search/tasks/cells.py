"""Cells of tables: which hold a label, and what they say."""

from __future__ import annotations

import ast
import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from recon_search.errors import LabelError, nearest

MISSING = frozenset(["", "nan", "NaN", "NAN"])
"""Texts that are no label."""

FLAGS = {"0": 0, "false": 0, "no": 0, "n": 0, "f": 0, "1": 1, "true": 1, "yes": 1, "y": 1, "t": 1}
"""Texts that mean no or yes, in small letters."""

OPPOSITES = (("0", "1"), ("false", "true"), ("no", "yes"), ("n", "y"), ("f", "t"))
"""Those that belong together."""

LARGEST = 1e100
"""Size of a number from which on its square, or the sum of many, may be none."""

DIGITS = 6
"""Of a number that is written and no whole one: single precision has no more."""

SHOWN = 5
"""Classes that an error names, of those that are known."""


def plain(cell: Any) -> Any:
    """Return a scalar of numpy or torch, or an array of theirs, as Python's own."""
    return cell.tolist() if hasattr(cell, "tolist") else cell


def entries(cell: Any, separator: str) -> list[Any] | None:
    """Return what a cell of several entries holds, None where it is no label.

    A list is taken as it is, also one that is written as in JSON or Python, `["a", "b"]`; other
    text is cut at the separator; anything else is one entry.
    """
    cell = plain(cell)
    if isinstance(cell, str) and (written := _written_list(cell)) is not None:
        return written
    if isinstance(cell, (list, tuple, set, frozenset)):
        return [plain(entry) for entry in cell]
    if text(cell) is None:
        return None
    return cell.split(separator) if isinstance(cell, str) else [cell]


def _written_list(cell: str) -> list[Any] | None:
    """Return the list that a text writes down, None for any other text."""
    cell = cell.strip()
    if not (cell.startswith("[") and cell.endswith("]")):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            found: list[Any] = read(cell)
            return found
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return None


def single(cell: Any, task: str) -> Any:
    """Return a cell that holds one entry at most.

    Raises:
        LabelError: it holds several, or fields.
    """
    found = plain(cell)
    if isinstance(found, (list, tuple, set, frozenset, dict)):
        what = "fields" if isinstance(found, dict) else "a list"
        raise LabelError(
            f"Task '{task}' must be given one entry a cell, found {what}, {show(found)}. Name a "
            'column of single entries; lists are for kind = "labels" and "values".'
        )
    return cell


def text(cell: Any) -> str | None:
    """Return the name that a cell holds, None where it is no label.

    Whole numbers are written without decimals, so that 3, 3.0, "3" and "3.0" are one class:
    a column of whole numbers with gaps is often stored as one of fractions.
    """
    cell = plain(cell)
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    found = (cell.decode(errors="replace") if isinstance(cell, bytes) else str(cell)).strip()
    if re.fullmatch(r"-?\d+\.0+", found):
        found = found[: found.index(".")]
    return None if found in MISSING else found


def count(column: Iterable[Any], ignored: Collection[str], task: str) -> Counter[str]:
    """Count the names in cells, without those that are no label.

    Raises:
        LabelError: a cell holds a list.
    """
    names = (text(single(cell, task)) for cell in column)
    counts = Counter(name for name in names if name is not None)
    for each in ignored:
        counts.pop(each, None)
    return counts


def flag(name: str | None) -> int | None:
    """Return what a text means as an answer, 1 for yes and 0 for no; None where it is none."""
    return FLAGS.get(str(name).lower())


def number(cell: Any, task: str) -> float:
    """Return the number that a cell holds, nan where it is no label.

    Raises:
        LabelError: it holds none, or one that is not finite.
    """
    cell = plain(cell)
    found = text(cell)
    if found is None:
        return math.nan
    try:
        value = float(cell) if not isinstance(cell, str) else float(found)
    except (TypeError, ValueError):
        value = math.inf
    if not math.isfinite(value) or "_" in found:  # Python reads 1_000
        raise LabelError(
            f"Task '{task}' must be given finite numbers, found {show(cell)}. Write a number like "
            "12 or 0.5, leave the cell empty, or name it in `ignore`."
        )
    if abs(value) > LARGEST:
        raise LabelError(
            f"Task '{task}' must be given numbers up to {LARGEST:g}, found {show(cell)}. Choose a "
            "larger unit, leave the cell empty, or name it in `ignore`."
        )
    return value


def sort_names(names: Iterable[str]) -> tuple[str, ...]:
    """Sort the names of classes: numbers by their value, else texts."""
    found = sorted(set(names))
    try:
        return tuple(sorted(found, key=float))
    except ValueError:
        return tuple(found)


def index_of(name: str, known: Sequence[str], task: str) -> int:
    """Return the place of a class among those of its task.

    Raises:
        LabelError: it is not among them.
    """
    try:
        return known.index(name)
    except ValueError:
        raise LabelError(
            f"Task '{task}' must be given one of its {len(known)} classes "
            f"({enumerate_names(known)}), found {show(name)}, which does not occur in the training "
            f"part.{nearest(name, known)} Correct it, leave the cell empty, or name it in "
            "`classes` or `ignore`."
        ) from None


def enumerate_names(names: Collection[str]) -> str:
    """Name the first few of some classes."""
    shown = ", ".join(list(names)[:SHOWN])
    return shown + ", ..." if len(names) > SHOWN else shown


def show(cell: Any) -> str:
    """Write a cell in a line, cut where it is long."""
    found = " ".join(repr(cell).split())
    return found if len(found) <= 60 else f"{found[:57]}..."


def rounded(value: Any) -> Any:
    """Return a number with no more digits than single precision has, and anything else as it is."""
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
