"""What there is to choose from, as rows and as tables."""

from __future__ import annotations

import json
from typing import Any

from rich.markup import escape
from rich.table import Table

from recon_search.methods.registry import METHODS


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


def method_table() -> Table:
    """The gradient methods with their options and papers."""
    table = Table(title="Gradient methods: train.method, train.options", title_justify="left")
    table.add_column("method", no_wrap=True)
    table.add_column("needs", style="dim", no_wrap=True)
    table.add_column("options")
    table.add_column("paper")
    table.add_column("pip install", style="dim", no_wrap=True)
    for row in method_rows():
        options = ", ".join(
            f"{name} = {json.dumps(value)}" for name, value in row["options"].items()
        )
        paper = f"{row['title']}, {row['source']}"
        table.add_row(row["name"], row["needs"], options, paper, escape(row["install"] or ""))
    return table
