"""Images that somebody asks about: by file, folder, pattern or table."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from recon_search.data.pictures import extensions
from recon_search.data.tables import read_table
from recon_search.disk import in_one_line
from recon_search.errors import DataError

TABLES = (".csv", ".tsv", ".parquet", ".pq")
"""What names of tables end with; every other file is an image."""


@dataclass(frozen=True)
class Picture:
    """An image to be looked at.

    Attributes:
        name: what whoever asked calls it.
        path: of its file.
    """

    name: str
    path: Path


def find_pictures(
    given: Sequence[str | Path], *, column: str = "file", root: Path | None = None
) -> list[Picture]:
    """List images, each file once, in the order given; those of a folder or a pattern by name.

    Args:
        given: files, folders (looked through to the bottom), patterns, and tables.
        column: of a table, that holds paths.
        root: of those; the table's folder if None.

    Raises:
        DataError: something is not there, or names no image.
    """
    found: dict[Path, Picture] = {}
    for each in given:
        before = len(found)
        for picture in _list(each, column, root):
            found.setdefault(picture.path.absolute(), picture)
            if not _is_text(picture.name):
                raise DataError(
                    f"Names of images must be text in UTF-8 to be written to a table, got "
                    f"'{in_one_line(picture.name)}'. Rename it."
                )
        if len(found) == before and not _is_known(each):
            raise DataError(
                f"IMAGES must name images, '{each}' names none. Give files, folders, a pattern in "
                "quotes, or a table with a column of paths."
            )
    return list(found.values())


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_known(given: str | Path) -> bool:
    """Whether something is an image file, which may have been given twice."""
    return Path(given).is_file()


def _list(given: str | Path, column: str, root: Path | None) -> Iterator[Picture]:
    path = Path(given)
    if path.is_dir():
        yield from _images(sorted(path.rglob("*")))
    elif path.suffix.lower() in TABLES and path.is_file():
        yield from _rows(path, column, path.parent if root is None else root)
    elif path.exists():
        yield Picture(str(path), path)
    elif any(mark in str(given) for mark in "*?["):
        yield from _images(Path(name) for name in sorted(glob.glob(str(given), recursive=True)))
    else:
        raise DataError(
            f"IMAGES must be there, found nothing at {path}. Check it; put patterns in quotes."
        )


def _images(paths: Sequence[Path] | Iterator[Path]) -> Iterator[Picture]:
    known = extensions()
    for path in paths:
        if path.suffix.lower() in known and path.is_file():
            yield Picture(str(path), path)


def _rows(path: Path, column: str, root: Path) -> Iterator[Picture]:
    table = read_table(path, {column: "--column"})
    for cell, place in zip(table.columns[column], table.places, strict=True):
        name = str(cell or "").strip()
        if not name:
            raise DataError(f"{place}: column '{column}' must hold a path, found none. Fill it.")
        yield Picture(name, root / name)
