"""A contact sheet: training images as the network gets them, each with its labels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from recon_search.stages.data import Looked
from recon_search.tasks.binary import Binary
from recon_search.tasks.classes import Classes
from recon_search.tasks.labels import Labels
from recon_search.tasks.task import Task
from recon_search.tasks.values import Values
from recon_search.views.maps import name_pictures, paint, side_by_side

IMAGES = 24
COLUMNS = 6
LINES = 8
"""Labels below an image."""
WIDTH = 26
"""Letters of a label's line."""

NONE = "-"
"""What stands for a missing label."""


def contact_sheet(looked: Looked) -> Figure:
    """Draw the first training images of an epoch with their labels; those of pixels beside them."""
    dense = [task for task in looked.tasks if task.reads == "pyramid"]
    tasks = [task for task in looked.tasks if task.reads != "pyramid"]
    wide = 1 + len(dense)
    columns = max(1, COLUMNS // wide)
    shown = list(looked.draw(IMAGES // wide + 1 if dense else IMAGES))
    rows = max(1, math.ceil(len(shown) / columns))
    lines = min(len(tasks), LINES + 1) + bool(dense)
    figure = Figure(
        figsize=(2.1 * columns * wide, (1.95 + 0.17 * lines) * rows + 0.4), layout="constrained"
    )
    figure.suptitle("Training images as the network gets them, before normalisation", fontsize=10)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.axis("off")
    for axes, (image, targets) in zip(panels, shown, strict=False):
        pixels = _pixels(image)
        if dense:
            maps = [paint(task, targets[task.name]) for task in dense]
            pixels = side_by_side([np.broadcast_to(_coloured(pixels), maps[0].shape), *maps])
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        texts = [
            _shorten(f"{task.name}: {describe(task, targets.get(task.name))}")
            for task in tasks[:LINES]
        ]
        if len(tasks) > LINES:
            texts.append(f"... {len(tasks) - LINES} more tasks")
        if dense:
            texts.append(" ")
            name_pictures(axes, ["image", *(task.name for task in dense)])
        axes.set_title("\n".join(texts), fontsize=7, loc="left")
    return figure


def describe(task: Task, target: Tensor | None) -> str:
    """Say a label in the user's words; `NONE` where there is none."""
    if target is None or not int(task.n_labels(target[None])):
        return NONE
    if isinstance(task, Classes | Binary):
        return task.class_names[int(target)]
    if isinstance(task, Labels):
        named = zip(task.class_names, target.tolist(), strict=True)
        return ", ".join(name for name, yes in named if yes == 1) or "none"
    if isinstance(task, Values):
        numbers = ", ".join(NONE if math.isnan(n) else f"{n:.4g}" for n in target.tolist())
        return f"{numbers} {task.unit}".strip()
    return f"{target.item():.4g}" if target.numel() == 1 else f"shape {tuple(target.shape)}"


def _pixels(image: Tensor) -> NDArray[Any]:
    """(H, W) or (H, W, 3) in levels from 0 to 255; of numbers without levels their own range."""
    pixels = image.numpy()
    if image.is_floating_point():
        least, greatest = float(pixels.min()), float(pixels.max())
        pixels = (255 * (pixels - least) / max(greatest - least, 1e-12)).astype(np.uint8)
    return pixels[:3].transpose(1, 2, 0) if len(pixels) >= 3 else pixels[0]


def _coloured(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _shorten(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"
