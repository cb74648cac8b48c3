"""Images with what a model says of them, for looking."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from recon_search.tasks.binary import Binary
from recon_search.tasks.task import Task
from recon_search.views.maps import name_pictures, paint, side_by_side

IMAGES = 24
"""In a grid, at most."""

COLUMNS = 6
MAPS = 8
"""Beside an image, at most."""

SIDE = 200
LETTERS = 28
"""Of a line, at most."""


def prediction_grid(
    shown: Sequence[tuple[Image.Image, Sequence[str]]], beside: Sequence[str] = ()
) -> Figure:
    """Draw images, each under some lines of text.

    Args:
        shown: images and lines.
        beside: names of the maps that stand beside each image (see `with_maps`).
    """
    names = ["image", *beside[:MAPS]]
    wide = len(names)
    n_columns = min(max(1, COLUMNS // wide), max(1, len(shown)))
    rows = max(1, math.ceil(len(shown) / n_columns))
    n_lines = max((len(texts) for _, texts in shown), default=1) + (wide > 1)
    size = (2.1 * n_columns * wide, (1.95 + 0.17 * n_lines) * rows)
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(rows, n_columns, squeeze=False).flat)
    for axes in panels:
        axes.axis("off")
    for axes, (image, texts) in zip(panels, shown, strict=False):
        axes.imshow(image.convert("RGB"), interpolation="nearest")
        lines = [_shorten(line, LETTERS * wide) for line in texts]
        if wide > 1:
            lines.append(" ")
            name_pictures(axes, [_shorten(name, LETTERS) for name in names])
        axes.set_title("\n".join(lines), fontsize=7, loc="left")
    return figure


def n_shown(n_maps: int) -> int:
    """Return how many images a grid has at most, given how many maps stand beside each."""
    return -(-IMAGES // (1 + min(n_maps, MAPS)))


def with_maps(
    picture: Image.Image, columns: Mapping[str, list[Any]], row: int, tasks: Sequence[Task]
) -> Image.Image:
    """Return a small picture, and beside it what tasks say of every pixel of it, painted alike."""
    picture = picture.copy()
    picture.thumbnail((SIDE, SIDE))
    parts = [picture.convert("RGB")]
    for task in tasks[:MAPS]:
        painted = Image.fromarray(paint(task, columns[task.name][row]))
        parts.append(painted.resize(picture.size, Image.Resampling.NEAREST))
    return Image.fromarray(side_by_side([np.asarray(part) for part in parts]))


def lines_of(columns: Mapping[str, list[Any]], row: int, tasks: Sequence[Task]) -> list[str]:
    """What a grid says of the image of a row: its name, a line a task, and what has no room."""
    lines = [str(next(iter(columns.values()))[row])[-LETTERS:]]
    names = [task.name for task in tasks]
    dense = [task.name for task in tasks if task.reads == "pyramid"]
    for task in tasks:
        if task.name in columns and task.name not in dense:
            value, probable = columns[task.name][row], f"{task.name} probability"
            share = None if probable in names else columns.get(probable)
            if share is not None and isinstance(task, Binary) and value == task.class_names[0]:
                share = [1 - yes for yes in share]  # of what is said
            said = f"{value:.4g}" if isinstance(value, float) else str(value)
            unit = getattr(task, "unit", "")
            certain = "" if share is None else f" ({share[row]:.0%})"
            lines.append(f"{task.name}: {said}{' ' * bool(unit)}{unit}{certain}")
    if len(dense) > MAPS:
        lines.append(f"{len(dense) - MAPS} more maps")
    return lines


def _shorten(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"
