"""Tables of the page: plain values that a template writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table

FEW = 12
"""Rows of a long table that are shown before a person asks for all."""


@dataclass(frozen=True)
class Line:
    """A row.

    Attributes:
        cells: text, one a column.
        style: `bold`, `dim` or none.
        extra: shown where a person asks for all rows.
    """

    cells: Sequence[str]
    style: str = ""
    extra: bool = False


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        caption: what it is.
        headings: one a column; of several lines where they hold line breaks.
        lines: in order.
        left: numbers of the columns that are words.
        head: number of the column that names a row.
        note: below.
    """

    caption: str
    headings: Sequence[str]
    lines: Sequence[Line]
    left: frozenset[int] = frozenset({0})
    head: int = 0
    note: str = ""

    @property
    def n_extra(self) -> int:
        """Rows that are not shown at first."""
        return sum(line.extra for line in self.lines)


def without_empty(headings: Sequence[str], lines: Sequence[Line]) -> tuple[list[str], list[Line]]:
    """Leave out columns in which no line has anything."""
    known = [place for place in range(len(headings)) if any(line.cells[place] for line in lines)]
    kept = [replace(line, cells=[line.cells[place] for place in known]) for line in lines]
    return [headings[place] for place in known], kept


def from_rich(
    table: Table, caption: str, *, head: int = 0, is_extra: Callable[[int], bool] | None = None
) -> Grid:
    """Take over a table of the terminal, without its title.

    Args:
        table: what the terminal shows.
        caption: what it is.
        head: number of the column that names a row.
        is_extra: which rows are not shown at first; all beyond the first `FEW` if not given, where
            there are some more.
    """
    plain = Console(width=400)

    def text(value: object) -> str:
        return plain.render_str(str(value)).plain

    if is_extra is None:
        many = table.row_count > FEW + 4

        def is_extra(row: int) -> bool:
            return many and row >= FEW

    cells = [list(column.cells) for column in table.columns]
    lines = [
        Line([text(column[place]) for column in cells], str(row.style or ""), is_extra(place))
        for place, row in enumerate(table.rows)
    ]
    left = {place for place, column in enumerate(table.columns) if column.justify != "right"}
    headings = [text(column.header) for column in table.columns]
    note = text(table.caption) if table.caption else ""
    return Grid(caption, headings, lines, frozenset(left), head, note)
