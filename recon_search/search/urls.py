"""The URLs of databases: which are files, what may be shown of them, and what lies there."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path
from urllib.parse import quote, unquote

import sqlalchemy
from sqlalchemy.exc import ArgumentError

from recon_search.errors import RecipeError

_SECRET = re.compile(r"(?i)((?:password|passwd|pwd)(?:=|%3d))(?:(?!%3b)[^&;])*")
"""Passwords among the options of a URL, and within those of ODBC, which are quoted once more."""


def is_local(url: str) -> bool:
    """Whether a database is a file, which one machine works on."""
    return url.startswith("sqlite")


def file_url(path: Path) -> str:
    """The URL of a database in a file, whatever its name.

    SQLAlchemy quotes what has a meaning in URLs since 2.1; before, SQLite itself has to.
    """
    url = sqlalchemy.URL.create("sqlite", database=str(path)).render_as_string()
    if sqlalchemy.make_url(url).database == str(path):
        return url
    return f"sqlite:///file:{quote(str(path))}?uri=true"


def is_missing(url: str) -> bool:
    """Whether a database is a file that does not exist."""
    if not is_local(url):
        return False
    try:
        path = sqlalchemy.make_url(url).database or ""
    except ArgumentError:  # which opening it explains
        return False
    if path.startswith("file:"):
        path = unquote(path.removeprefix("file:"))
    return path not in ("", ":memory:") and not Path(path).exists()


def hide_password(url: str) -> str:
    """The URL without its password, however malformed it is."""
    url = re.sub(r"(?<=:)(?!//).*(?=@)", "***", url)
    return _SECRET.sub(r"\1***", url)


def check_pages(url: str) -> None:
    """Make sure that the pages of a SQLite file, if there is one, fit together.

    Raises:
        RecipeError: saying what does not.
        sqlite3.Error: the file is no database.
    """
    if not is_local(url) or is_missing(url):
        return
    path = sqlalchemy.make_url(url).database or ""
    if not path or path.startswith((":", "file:")):
        return
    with contextlib.closing(sqlite3.connect(path, timeout=60)) as connection:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise RecipeError(
            f"--storage must be an undamaged database, {path} is not ("
            f"{' '.join(str(found).split())}). Restore it from a copy, or begin another."
        )


def has_studies(url: str) -> bool:
    """Whether a database has the tables of studies; nothing is written."""
    engine = sqlalchemy.create_engine(url)
    try:
        return sqlalchemy.inspect(engine).has_table("studies")
    finally:
        engine.dispose()
