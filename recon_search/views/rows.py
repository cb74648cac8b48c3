"""Rows of plain values as a file: CSV, JSON lines or Parquet, by its ending; a batch at a time."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recon_search import artefact
from recon_search.data.tables import import_parquet
from recon_search.errors import ReconSearchError
from recon_search.tasks.cells import rounded

Columns = Mapping[str, list[Any]]
Write = Callable[[Columns], None]
ENDINGS = (".csv", ".jsonl", ".parquet")


def check_ending(path: Path) -> None:
    """Refuse a file that rows cannot be written to, before they are computed.

    Raises:
        ReconSearchError: its ending is unknown, or what it needs is not installed.
    """
    if path.suffix not in ENDINGS:
        raise ReconSearchError(
            f"--out must end in {', '.join(ENDINGS)}, got '{path}'. Change the ending."
        )
    if path.suffix == ".parquet":
        import_parquet()


@contextmanager
def rows_file(path: Path) -> Iterator[Write]:
    """Yield what writes columns of equal length; the file is there once the block has ended well.

    The columns are those of the first batch.
    """
    check_ending(path)
    make = {".csv": _csv, ".jsonl": _json_lines, ".parquet": _parquet}[path.suffix]
    with artefact.atomic(path) as temporary, make(temporary) as write:
        yield write


@contextmanager
def _csv(path: Path) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        is_new = True

        def write(columns: Columns) -> None:
            nonlocal is_new
            if is_new:
                writer.writerow(columns)
            is_new = False
            for values in zip(*columns.values(), strict=True):
                writer.writerow(map(rounded, values))

        yield write


@contextmanager
def _json_lines(path: Path) -> Iterator[Write]:
    with path.open("w", encoding="utf-8") as file:

        def write(columns: Columns) -> None:
            for values in zip(*columns.values(), strict=True):
                row = dict(zip(columns, map(_plain, values), strict=True))
                file.write(json.dumps(row, ensure_ascii=False) + "\n")

        yield write


@contextmanager
def _parquet(path: Path) -> Iterator[Write]:
    parquet = import_parquet()
    import pyarrow

    writer = None

    def write(columns: Columns) -> None:
        nonlocal writer
        schema = None if writer is None else writer.schema
        values = {name: list(map(rounded, column)) for name, column in columns.items()}
        table = pyarrow.Table.from_pydict(values, schema=schema)
        if writer is None:
            writer = parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else rounded(value)
