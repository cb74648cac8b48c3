"""Text of a user's in tables of the terminal."""

from __future__ import annotations

from rich import markup

from recon_search.disk import in_one_line


def escape(text: str) -> str:
    """Text as a cell shows it: brackets are brackets, and what would steer a terminal is spelt out.

    Names of classes and folders come from whoever made the data. Line breaks stay.
    """
    return markup.escape("\n".join(map(in_one_line, text.split("\n"))))
