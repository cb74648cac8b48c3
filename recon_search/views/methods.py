"""What there is to choose from, as rows and as tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from recon_search.methods.registry import METHODS
from recon_search.views.markup import escape

WIDE = 140
"""Columns of a terminal that has room for titles of papers."""


def method_rows() -> list[dict[str, Any]]:
    """The gradient methods: `name`, `needs`, `options`, `title`, `source`, `install`."""
    return [
        {
            "name": method.name,
            "needs": method.needs,
            "options": dict(method.options),
            "title": method.title,
            "source": method.source,
            "install": method.install,
        }
        for method in METHODS.values()
    ]


def method_table(width: int) -> Table:
    """The gradient methods with their options and papers.

    In a narrow terminal papers are without titles, and what is to be installed stands below.
    """
    rows, is_wide = method_rows(), width >= WIDE
    table = Table(
        title="Gradient methods: train.method, train.options",
        title_justify="left",
        caption="" if is_wide else escape(_installs(rows)),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("method", no_wrap=True)
    table.add_column("needs", style="dim", no_wrap=True)
    table.add_column("options")
    table.add_column("paper", no_wrap=not is_wide)
    if is_wide:
        table.add_column("pip install", style="dim", no_wrap=True)
    for row in rows:
        options = ", ".join(
            f"{name} = {json.dumps(value)}" for name, value in row["options"].items()
        )
        paper = f"{row['title']}, {row['source']}" if is_wide else row["source"]
        more = [escape(row["install"] or "")] if is_wide else []
        table.add_row(row["name"], row["needs"], escape(options), escape(paper), *more)
    return table


def _installs(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say what some methods need."""
    needs: dict[str, list[str]] = {}
    for row in rows:
        if row["install"]:
            needs.setdefault(row["install"], []).append(row["name"])
    lines = [f"pip install '{package}' for {', '.join(own)}" for package, own in needs.items()]
    return "\n".join(lines)
