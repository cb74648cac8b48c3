"""The picture of a split network as a figure, for files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from recon_search.graph.anatomy import Anatomy
from recon_search.graph.partition import Group
from recon_search.views.lanes import Align, Face, Ink, Lanes

PALETTE = ("#c44e52", "#4c72b0", "#55a868", "#dd8452", "#8172b3", "#937860", "#da8bc3", "#64b5cd")
FACES = {"trunk": "#c3c9d1", "reused": "#f1f3f5"}
INKS = {"ink": "#2b2f36", "pale": "#7c858f", "inside": "white"}


def picture(anatomy: Anatomy) -> Figure:
    """Draw which layers are computed how often, with whose weights, and at what cost."""
    lanes = Lanes(anatomy)
    canvas = _FigureCanvas(lanes.width, lanes.height, anatomy.tasks)
    lanes.draw(canvas)
    return canvas.figure


class _FigureCanvas:
    """A figure whose axes fill it, one unit of data an inch."""

    def __init__(self, width: float, height: float, tasks: Sequence[str]) -> None:
        self._colours = {task: PALETTE[i % len(PALETTE)] for i, task in enumerate(tasks)}
        self.figure = Figure(figsize=(width, height), facecolor="white")
        self._axes: Axes = self.figure.add_axes((0, 0, 1, 1))
        self._axes.set(xlim=(0, width), ylim=(height, 0))
        self._axes.set_axis_off()

    def box(self, start: float, end: float, y: float, height: float, face: Face) -> None:
        """Draw a box."""
        colour = FACES[face] if isinstance(face, str) else self._mixture(face)
        self._axes.add_patch(
            FancyBboxPatch(
                (start, y),
                end - start,
                height,
                boxstyle="round,pad=0,rounding_size=0.03",
                facecolor=colour,
                edgecolor=INKS["pale"] if face == "reused" else colour,
                linestyle="--" if face == "reused" else "-",
                linewidth=0.7,
            )
        )

    def line(self, x: Sequence[float], y: Sequence[float]) -> None:
        """Draw a line."""
        self._axes.plot(x, y, color=INKS["pale"], linewidth=1.3, zorder=0)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 8,
        ink: Ink = "ink",
        align: Align = "left",
        bold: bool = False,
        italic: bool = False,
        slanted: bool = False,
    ) -> None:
        """Write text."""
        self._axes.text(
            x,
            y,
            text,
            fontsize=size,
            color=INKS[ink] if isinstance(ink, str) else self._mixture(ink),
            ha=align,
            va="bottom" if slanted else "center",
            weight="bold" if bold else "normal",
            style="italic" if italic else "normal",
            rotation=50 if slanted else 0,
            rotation_mode="anchor",
        )

    def _mixture(self, group: Group) -> str:
        """A task's colour, or the mixture of a group's."""
        mixture = np.mean([to_rgb(self._colours[task]) for task in group], axis=0)
        return to_hex(mixture * (0.9 if len(group) > 1 else 1))
