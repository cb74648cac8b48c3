"""Pictures of labels of pixels, and of predictions: to be looked at."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from recon_search.tasks.depth import Depth
from recon_search.tasks.edges import Edges
from recon_search.tasks.normals import Normals
from recon_search.tasks.segments import Segments
from recon_search.tasks.task import Task

UNKNOWN = 0
"""Level of pixels without a label: black."""

GAP = 3
"""White pixels between pictures."""


def paint(task: Task, picture: Tensor) -> NDArray[np.uint8]:
    """Paint the labels of an image, or what `decode` says of one, (H, W, 3).

    Classes have a colour each, the first one grey. What is near is bright, between the nearest and
    the farthest. Directions x, y and z are red, green and blue. Edges are as bright as they are
    probable. What is unknown is black; so are labels of a kind of one's own.

    Args:
        task: of a kind of pixels.
        picture: (H, W), or (3, H, W) of directions.
    """
    picture = picture.detach().cpu()
    size = picture.shape[-2:]
    if isinstance(task, Segments):
        known = (picture >= 0) & (picture < task.n_classes)
        index = torch.where(known, picture.long(), 0).numpy()
        return np.where(known.numpy()[..., None], palette(task.n_classes)[index], UNKNOWN).astype(
            np.uint8
        )
    if isinstance(task, Depth):
        known = picture.isfinite() & (picture > 0)
        if not known.any():
            return np.full((*size, 3), UNKNOWN, np.uint8)
        least, most = picture[known].min(), picture[known].max()
        near = torch.where(known, (most - picture) / (most - least).clamp(min=1e-12), 0.0)
        levels = 255 * matplotlib.colormaps["viridis"](near.numpy())[..., :3]
        return np.where(known.numpy()[..., None], levels, UNKNOWN).astype(np.uint8)
    if isinstance(task, Normals):
        known = picture.isfinite().all(0) & (picture != 0).any(0)
        levels = torch.where(known, (picture.clamp(-1, 1) + 1) * 127.5, UNKNOWN)
        return levels.movedim(0, 2).numpy().astype(np.uint8)
    if isinstance(task, Edges):
        grey = (255 * picture.float().nan_to_num(UNKNOWN).clamp(0, 1)).numpy().astype(np.uint8)
        return np.repeat(grey[..., None], 3, 2)
    return np.full((*size, 3), UNKNOWN, np.uint8)


def side_by_side(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Put pictures of one size (H, W, 3) in a row, a little apart."""
    gap = np.full((pictures[0].shape[0], GAP, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)]
    return np.hstack(parts[1:])


def name_pictures(axes: Axes, names: Sequence[str]) -> None:
    """Write a name over each of the pictures in a row that axes show, in the title's last line."""
    width = (axes.images[0].get_array().shape[1] + GAP) / len(names)  # type: ignore[union-attr]
    for place, name in enumerate(names):
        axes.annotate(
            name,
            (place * width - 0.5, -0.5),
            xytext=(0, 3),
            textcoords="offset points",
            fontsize=7,
            annotation_clip=False,
        )


def palette(n: int) -> NDArray[np.uint8]:
    """Return n colours (n, 3), grey first; neighbours differ, and more classes change none."""
    golden = 0.61803398875
    colours = [(0.45, 0.45, 0.45)]
    for index in range(n - 1):
        strength = 0.55 + 0.4 * ((index // 10) % 2 == 0)
        colours.append(colorsys.hsv_to_rgb(index * golden % 1, strength, 0.95 - 0.1 * (index % 3)))
    return (255 * np.array(colours[:n])).round().astype(np.uint8)
