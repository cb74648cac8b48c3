"""The page, made of the templates that the package holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

CONTENTS = {
    "answer": "The answer",
    "comparison": "Comparison",
    "cost": "What it costs",
    "conflicts": "Where the tasks conflict",
    "ranking": "The ranking",
    "network": "The split network",
    "change": "Conflicts before and after",
    "curves": "Training",
    "examples": "What the model says",
    "search": "The search",
    "recipe": "How to repeat it",
}
"""Sections in their order, by the names that addresses end in."""

LONG = 10
"""Letters of a word above which it may be broken where it has joints."""


def render(values: Mapping[str, Any]) -> str:
    """Write the page; whatever things are called, they are text.

    Args:
        values: `title`, `lead`, `heat`, `any_marked`, `ranking`, `unmeasured`, `origin` and
            `recipe`; `switch`, `judged`, `network`, `change`, `curves`, `examples` and `search`
            where the run has them, else None.
    """
    environment = Environment(
        loader=PackageLoader("recon_search.views.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    needs = {"answer": "judged", "comparison": "judged", "cost": "judged"}
    environment.filters["breakable"] = _breakable
    always = ("conflicts", "ranking", "recipe")
    contents = [
        (name, text)
        for name, text in CONTENTS.items()
        if name in always or values[needs.get(name, name)]
    ]
    return environment.get_template("page.html").render(contents=contents, **values)


def _breakable(text: str) -> Markup:
    """Let long names be broken where they have underscores, dots or hyphens."""
    parts = re.split(r"(\s+)", text)
    return Markup("").join(
        Markup(re.sub(r"([_.-])", r"\1<wbr>", str(escape(part)))) if len(part) > LONG else part
        for part in parts
    )
