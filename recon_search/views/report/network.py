"""The picture of a split network as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from recon_search.graph.anatomy import Anatomy
from recon_search.graph.naming import one_line
from recon_search.graph.partition import Group
from recon_search.views.lanes import Align, Face, Ink, Lanes
from recon_search.views.report.svg import SERIES, drawing, tag

INCH = 96
"""Units of an inch."""

ANCHORS = {"left": "", "center": " middle", "right": " end"}

NAMED = 12
"""Split layers that are named to a reader of screens."""


def network_plot(anatomy: Anatomy) -> Markup:
    """Draw which layers are computed how often, with whose weights, and at what cost."""
    lanes = Lanes(anatomy)
    canvas = _SvgCanvas(anatomy.tasks)
    lanes.draw(canvas)
    split = [row.layers[0] for row in anatomy.layers if len(row.copies) > 1]
    more = f" and {len(split) - NAMED} more" if len(split) > NAMED else ""
    return drawing(
        INCH * lanes.width,
        INCH * lanes.height,
        *canvas.lines,
        *canvas.parts,
        label=f"{len(split)} of {len(anatomy.layers)} layers of {anatomy.title} have private "
        f"copies: {', '.join(split[:NAMED]) or 'none'}{more}. The table below holds the costs.",
        class_="lanes",
    )


class _SvgCanvas:
    """Elements whose colours the style sheet knows."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self._numbers = {task: place for place, task in enumerate(tasks)}
        self.lines: list[Markup] = []
        self.parts: list[Markup] = []

    def box(self, start: float, end: float, y: float, height: float, face: Face) -> None:
        """Draw a box."""
        own = {"class_": face} if isinstance(face, str) else self._colour(face, "own")
        self.parts.append(
            tag("rect", x=INCH * start, y=INCH * y, width=INCH * (end - start),
                height=INCH * height, rx=3, **own)
        )  # fmt: skip

    def line(self, x: Sequence[float], y: Sequence[float]) -> None:
        """Draw a line."""
        (x1, x2), (y1, y2) = x, y
        self.lines.append(
            tag("line", x1=INCH * x1, x2=INCH * x2, y1=INCH * y1, y2=INCH * y2, class_="fork")
        )

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
        units = size * INCH / 72
        classes = f"{ANCHORS[align]}{' strong' if bold else ''}{' slim' if italic else ''}"
        own = {"class_": f"{ink}{classes}"}
        if not isinstance(ink, str):
            own = self._colour(ink, f"of{classes}")
        own["style"] = ";".join([f"font-size:{units:.1f}px", *filter(None, [own.get("style")])])
        across, down = round(INCH * x, 1), INCH * y
        if slanted:
            own["transform"] = f"rotate(-50 {across} {down:.1f})"
        lines = text.split("\n")
        for place, line in enumerate(lines):
            middle = down + units * (1.15 * (place - (len(lines) - 1) / 2))
            base = middle if slanted else middle + 0.35 * units
            self.parts.append(tag("text", one_line(line), x=across, y=base, **own))

    def _colour(self, group: Group, class_: str) -> dict[str, str]:
        """Attributes of a task's colour, or of the mixture of a group's."""
        first, *others = (f"s{self._numbers[task] % SERIES}" for task in group)
        found = {"class_": f"{class_} {first}"}
        if others:
            mixture = f"var(--{first})"
            for place, other in enumerate(others, start=2):
                mixture = f"color-mix(in srgb, {mixture}, var(--{other}) {100 / place:.0f}%)"
            found["style"] = f"--c:{mixture}"
        return found
