"""The URLs of databases: which are files, and what may be shown of them."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, unquote

import sqlalchemy
from sqlalchemy.exc import ArgumentError

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
