"""Inline SVG: elements, scales and axes. Colours are classes that the style sheet knows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape
from matplotlib.ticker import MaxNLocator

WIDTH = 420
"""Units of charts; drawn a little larger or smaller, as the window asks for."""

SERIES = 8
"""Colours of series; beyond, lines are dashed."""


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """Return an element; `_` in names of attributes is `-`, and `class_` is `class`."""
    own = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = "".join(str(escape(child)) for child in children)
    return Markup(f"<{name}{own}>{inner}</{name}>" if inner else f"<{name}{own}/>")


def drawing(
    width: float, height: float, *children: object, label: str, class_: str = "chart"
) -> Markup:
    """Return a whole picture, which a reader of screens hears as `label`."""
    return tag(
        "svg",
        *children,
        viewBox=f"0 0 {_plain(width)} {_plain(height)}",
        role="img",
        aria_label=label,
        class_=class_,
        style=f"--w:{_plain(width)}",
    )


def series(index: int) -> str:
    """Name the class of a series; each has its own colour, or else its own dashes."""
    return f"s{index % SERIES}" + (f" d{min(index // SERIES, 3)}" if index >= SERIES else "")


class Scale(NamedTuple):
    """Values from `low` to `high` drawn from `start` to `stop`."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """Return where a value is drawn; outside, at the end."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.stop - self.start), 1)

    def ticks(self, most: int = 5) -> list[float]:
        """Return round values within."""
        found = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(self.low, self.high)
        slack = 1e-9 * (self.high - self.low)
        return [float(v) for v in found if self.low - slack <= v <= self.high + slack]


def reach(values: Iterable[float], *also: float, margin: float = 0.08) -> tuple[float, float]:
    """Return an interval that holds all finite values with some room."""
    known = [value for value in (*values, *also) if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    room = margin * (high - low) or 0.5 * max(abs(high), 1e-3)
    return low - room, high + room


def left_axis(scale: Scale, x: tuple[float, float], label: str = "") -> Markup:
    """Draw lines at the ticks of a vertical axis, with their values on the left."""
    parts = []
    for value in scale.ticks():
        y = scale(value)
        parts.append(tag("line", x1=x[0], x2=x[1], y1=y, y2=y, class_="grid"))
        parts.append(tag("text", number(value), x=x[0] - 5, y=y + 4, class_="tick end"))
    if label:
        parts.append(tag("text", label, x=2, y=12, class_="axis"))
    return tag("g", *parts)


def bottom_axis(
    scale: Scale, y: tuple[float, float], label: str = "", unit: str = "", most: int = 5
) -> Markup:
    """Draw lines at the ticks of a horizontal axis, with their values below."""
    parts = []
    for value in scale.ticks(most):
        x = scale(value)
        parts.append(tag("line", x1=x, x2=x, y1=y[0], y2=y[1], class_="grid"))
        text = f"{number(value)}{unit}"
        parts.append(tag("text", text, x=x, y=y[1] + 15, class_="tick middle"))
    if label:
        middle = (scale.start + scale.stop) / 2
        parts.append(tag("text", label, x=middle, y=y[1] + 32, class_="axis middle"))
    return tag("g", *parts)


def mark(kind: str, x: float, y: float, class_: str, size: float = 5) -> Markup:
    """Draw a point: `joint` a square, `split` a star, `control` a diamond, others round."""
    if kind == "joint":
        own = {"x": x - size, "y": y - size, "width": 2 * size, "height": 2 * size}
        return tag("rect", class_=f"mark {class_}", **own)
    if kind == "control":
        corners = [(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)]
    elif kind == "split":
        turns = [(index * math.pi / 5, 1.7 if index % 2 == 0 else 0.75) for index in range(10)]
        corners = [(r * math.sin(a), -r * math.cos(a)) for a, r in turns]
    else:
        return tag("circle", cx=x, cy=y, r=size, class_=f"mark {class_}")
    points = " ".join(f"{_plain(x + size * a)},{_plain(y + size * b)}" for a, b in corners)
    return tag("polygon", points=points, class_=f"mark {class_}")


def polyline(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    """Draw a line through points."""
    return tag(
        "polyline", points=" ".join(f"{_plain(x)},{_plain(y)}" for x, y in points), class_=class_
    )


def stairs(points: Sequence[tuple[float, float]], x: Scale, y: Scale, class_: str) -> Markup:
    """Draw steps up through points, cheapest first, and on to the right end."""
    ends = [*points[1:], (x.high, points[-1][1])]
    corners = [
        (x(a), y(b))
        for (start, low), (end, high) in zip(points, ends, strict=True)
        for a, b in ((start, low), (end, low), (end, high))
    ]
    return polyline(corners, class_)


def number(value: float) -> str:
    """Write a value in few characters."""
    return f"{0.0 if abs(value) < 1e-12 else value:.4g}"


def _plain(value: object) -> object:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value
