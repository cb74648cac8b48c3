"""The record of an epoch as columns: for spreadsheets, and for who draws curves."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recon_search import artefact

TABLE = "metrics.csv"
"""Name of a training's table, in its folder."""


def flatten(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's numbers by path, as `validation/left/accuracy`; {} gives {}."""
    found: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            found |= {f"{key}/{path}": each for path, each in flatten(value).items()}
        else:
            found[key] = value
    return found


def write_table(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write a line an epoch, whole or not at all; a cell is empty where an epoch has no such value.

    It is a copy of what the checkpoint holds, so nobody waits until it is on the disk itself.
    """
    rows = [flatten(record) for record in history]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([columns, *([row.get(name, "") for name in columns] for row in rows)])
    with artefact.atomic(path, durable=False) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
