"""Tables: CSV by Python's own reader, every cell as text; Parquet by pyarrow, which is optional."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recon_search.data.listing import Faults
from recon_search.errors import DataError, in_one_line, nearest, shortened

DELIMITERS = (",", ";", "\t", "|")
"""What separates the cells of a CSV file, the commonest first; the header shows which it is."""

_COLUMNS_SHOWN = 12

_NO_TEXT = {
    b"PK": "an Excel, OpenDocument or ZIP file",
    b"\xd0\xcf\x11\xe0": "an Excel file",
    b"\x1f\x8b": "a gzip file",
    b"PAR1": "a Parquet file of another name",
    b"\x89PNG": "an image",
    b"\xff\xd8": "an image",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}
"""What a table may be that is none, by its first bytes."""

_TOLD = re.compile(r"sep=(.)\r?\n")


@dataclass(frozen=True)
class Table:
    """Columns of a file.

    Attributes:
        name: of the file.
        columns: those that were wanted.
        places: of each row, for errors; of a CSV file, with the line that an editor shows.
    """

    name: str
    columns: Mapping[str, Sequence[Any]]
    places: Sequence[str]


def read_table(
    path: Path,
    wanted: Mapping[str, str],
    delimiter: str | None = None,
    *,
    is_ragged: bool = False,
) -> Table:
    """Read columns of a table.

    Args:
        path: a file; `.parquet` or `.pq`, anything else is CSV in UTF-8 with a header.
        wanted: columns, and for errors the key of the recipe that names each.
        delimiter: of a CSV file; None finds it in the header.
        is_ragged: what follows the last of the wanted columns of a CSV file is not looked at; else
            every row must have as many cells as the header.

    Raises:
        DataError: the file is missing, malformed or empty, or has no such column.
    """
    if not path.is_file():
        near = nearest(path.name, _names_in(path.parent))
        raise DataError(f"`data.file` must be a table, found no file at {path}.{near} Check it.")
    if path.suffix.lower() in (".parquet", ".pq"):
        return _read_parquet(path, wanted)
    return _read_csv(path, wanted, delimiter, is_ragged=is_ragged)


def check_columns(name: str, found: Sequence[str], wanted: Mapping[str, str]) -> None:
    """Check that columns are there, once.

    Raises:
        DataError: naming those that are not, the key that names them, and what there is.
    """
    faults = Faults()
    for column, times in Counter(found).items():
        if times > 1 and column:
            faults.add(
                f"{name} must have every column once, found {times} named '{column}'. Rename one."
            )
    shown = ", ".join(found[:_COLUMNS_SHOWN]) + ", ..." * (len(found) > _COLUMNS_SHOWN)
    for column, key in wanted.items():
        if column not in found:
            faults.add(
                f"{name} must have the column '{column}' that `{key}` names, found {shown}."
                f"{nearest(column, found)} Correct one of the two."
            )
    faults.check()


def _names_in(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()] if folder.is_dir() else []


def _read_csv(
    path: Path, wanted: Mapping[str, str], delimiter: str | None, *, is_ragged: bool
) -> Table:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + error.object[: error.start].count(b"\n")
        for begin, what in _NO_TEXT.items():
            if error.object.startswith(begin):
                raise DataError(
                    f"{path.name} must be a table in CSV, or Parquet of a name in .parquet, this is"
                    f" {what}. Save it as CSV in UTF-8."
                ) from None
        raise DataError(
            f"{path.name} row {line}: a table must be UTF-8, found the byte "
            f"0x{error.object[error.start]:02x}. Save it as UTF-8."
        ) from None
    except OSError as error:
        raise DataError(f"{path} must be readable, it is not ({error.strerror}).") from None
    header, records, places = None, [], []
    faults = Faults()
    lines = io.StringIO(text, newline="")
    if told := _TOLD.match(text):  # as Excel is told the delimiter
        lines.seek(told.end())
        delimiter = delimiter or told[1]
    first = int(told is not None)
    reader = csv.reader(
        lines,
        delimiter=delimiter or _find_delimiter(text),
        skipinitialspace=True,  # before a quote, too
        strict=True,
    )
    start = 1 + first
    limit = csv.field_size_limit(len(text))  # a cell may be as long as it is
    try:
        for record in reader:
            row, start = start, first + reader.line_num + 1
            if not any(cell.strip() for cell in record):
                continue  # an empty line
            if header is None:
                header = [name.strip() for name in record]
                if len(header) == 1 < len(wanted):
                    raise DataError(
                        f"{path.name} row {row}: a header must name {len(wanted)} columns or more, "
                        f"found one, {shortened(header[0], 80)!r}. Begin with the header, or set "
                        "`data.delimiter` to what stands between its names."
                    )
                check_columns(path.name, header, wanted)
                if is_ragged:
                    header = header[: 1 + max(header.index(name) for name in wanted)]
                continue
            if is_ragged:
                record = record[: len(header)]
            if len(record) != len(header):
                few = "few" if len(record) < len(header) else "many"
                faults.add(
                    f"{path.name} row {row}: a row must have {len(header)} cells like the header, "
                    f"found {len(record)}, too {few}. Correct it; a cell with the delimiter in it "
                    "needs quotes."
                )
                continue
            records.append(record)
            places.append(f"{path.name} row {row}")
    except csv.Error as error:
        raise DataError(
            f"{path.name} row {start}: a table must be CSV, this is not ({error}). Correct it."
        ) from None
    finally:
        csv.field_size_limit(limit)
    faults.check()
    if header is None or not records:
        raise DataError(f"{path.name} must have a header and rows, found none. Fill it.")
    columns = {name: [record[header.index(name)] for record in records] for name in wanted}
    return Table(path.name, columns, places)


def _find_delimiter(text: str) -> str:
    """The delimiter that stands most often in the header outside quotes; a comma if none does."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    outside = "".join(first.split('"')[::2])
    return max(DELIMITERS, key=outside.count)


def _read_parquet(path: Path, wanted: Mapping[str, str]) -> Table:
    parquet = import_parquet()
    try:
        file = parquet.ParquetFile(path)
        check_columns(path.name, file.schema_arrow.names, wanted)
        read = file.read(columns=list(wanted))
        columns = {name: read.column(name).to_pylist() for name in wanted}
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        raise DataError(
            f"{path.name} must be a whole Parquet file, it does not read ({in_one_line(error)}). "
            "Write it again."
        ) from None
    if not read.num_rows:
        raise DataError(f"{path.name} must have rows, found none. Fill it.")
    return Table(path.name, columns, number_rows(path.name, read.num_rows))


def number_rows(name: str, n: int) -> list[str]:
    """Return the places of rows that are counted from 1."""
    return [f"{name} row {row}" for row in range(1, 1 + n)]


def import_parquet() -> Any:
    """Import pyarrow's reader of Parquet files.

    Raises:
        DataError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise DataError(
            "Parquet files need pyarrow, which is not installed. Run: pip install "
            "'recon-search[parquet]'"
        ) from None
    return pyarrow.parquet


def read_lines(path: Path) -> list[str]:
    """Read the lines of a list in UTF-8, with or without a mark that says so.

    Raises:
        DataError: it is no text, or cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} must be a list in UTF-8, it is not ({in_one_line(error)}). Fetch it again."
        ) from None
