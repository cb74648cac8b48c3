"""Images with what a model says of them, for looking."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from recon_search.tasks.task import Task

IMAGES = 24
"""In a grid, at most."""

COLUMNS = 6
SIDE = 200
LETTERS = 28
"""Of a line, at most."""


def prediction_grid(shown: Sequence[tuple[Image.Image, Sequence[str]]]) -> Figure:
    """Draw images, each under some lines of text."""
    n_columns = min(COLUMNS, max(1, len(shown)))
    rows = max(1, math.ceil(len(shown) / n_columns))
    lines = max((len(texts) for _, texts in shown), default=1)
    size = (2.1 * n_columns, (1.95 + 0.17 * lines) * rows)
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(rows, n_columns, squeeze=False).flat)
    for axes in panels:
        axes.axis("off")
    for axes, (image, texts) in zip(panels, shown, strict=False):
        axes.imshow(image.convert("RGB"), interpolation="nearest")
        text = "\n".join(map(_shorten, texts))
        axes.set_title(text, fontsize=7, loc="left")
    return figure


def lines_of(columns: Mapping[str, list[Any]], row: int, tasks: Sequence[Task]) -> list[str]:
    """What a grid says of the image of a row: its name, and a line a task."""
    lines = [str(next(iter(columns.values()))[row])[-LETTERS:]]
    for task in tasks:
        if task.name in columns:
            value, share = columns[task.name][row], columns.get(f"{task.name} probability")
            said = f"{value:.4g}" if isinstance(value, float) else str(value)
            unit = getattr(task, "unit", "")
            certain = "" if share is None else f" ({share[row]:.0%})"
            lines.append(f"{task.name}: {said}{' ' * bool(unit)}{unit}{certain}")
    return lines


def _shorten(text: str) -> str:
    return text if len(text) <= LETTERS else text[: LETTERS - 1] + "…"
