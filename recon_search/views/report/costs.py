"""What every network costs on the page, and what it gives for that: a table and plots."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from typing import NamedTuple

from markupsafe import Markup

from recon_search.runs.comparison import Comparison, Row, by_rule
from recon_search.tasks.scoring import mean_and_deviation
from recon_search.views.report.answer import networks, prices, said, the_split
from recon_search.views.report.grid import Grid, Line, without_empty
from recon_search.views.report.svg import (
    WIDTH,
    Scale,
    bottom_axis,
    drawing,
    left_axis,
    mark,
    reach,
    series,
    stairs,
    tag,
)
from recon_search.views.trial_plots import pareto

COSTS = {"FLOPs": "flops", "parameters": "parameters"}
"""What is paid, as `Row.prices` names it, and as plots do."""


def cost_grid(comparison: Comparison) -> Grid:
    """Every network: its cost, its height above the line, and what an added unit of cost gives.

    That is the gain over the first joint network by what is paid beyond it, in points of delta_m
    for its whole cost once more. Where nothing is added the cell is empty.
    """
    base, split, dear = comparison.rows[0], the_split(comparison), prices(comparison)
    ends = {"FLOPs": dear.single_flops, "parameters": dear.single_parameters}
    headings = ["#", "network"]
    for name in COSTS:
        headings += [name, f"above line,\n{name} (95 %)", f"points by\nadded {name}"]
    lines = []
    for place, row in enumerate(networks(comparison), start=1):
        cells = [str(place), row.name]
        for name, cost in COSTS.items():
            paid, price = _cost(row, base, cost), row.prices.get(name)
            above = None if price is None else price.above
            height = "" if above is None else f"{above.mean:+.2f}"
            if above is not None and above.interval is not None:
                height += f" ({said(above.interval)})"
            gain = statistics.fmean(row.delta_m) - statistics.fmean(base.delta_m)
            cells += [f"{paid:.2f}x", height, _slope(gain, paid)]
        lines.append(Line(cells, "bold" if row is split else ""))
    cells = ["", f"{len(comparison.single)} separate networks"]
    for name in COSTS:
        cells += [f"{ends[name]:.2f}x", "", _slope(-statistics.fmean(base.delta_m), ends[name])]
    lines.append(Line(cells, "dim"))
    caption = "Costs relative to joint training, and points of delta_m for them"
    note = (
        "Points by added FLOPs or parameters: the gain over joint training, divided by what is "
        "added to its cost. Above the line stands what has more of them than separate networks."
    )
    return Grid(caption, *without_empty(headings, lines), frozenset({1}), 1, note)


def _slope(gain: float, paid: float) -> str:
    """Gain by added cost; "" where too little is added to be seen, or there is no gain to tell."""
    return f"{gain / (paid - 1):+.1f}" if paid >= 1.005 and math.isfinite(gain) else ""


def cost_plot(comparison: Comparison, cost: str) -> Markup:
    """Draw delta_m against FLOPs or parameters, up to separate networks.

    The line from joint training to separate networks is what mixing the two would buy: a split
    earns its place above it. Steps join networks that none beats in both. A rule that was compared
    at several sizes or budgets has a line of its own between the same ends, and a band of one
    standard deviation over seeds.

    Args:
        comparison: what is drawn.
        cost: `flops` or `parameters`.
    """
    rows, base, dear = networks(comparison), comparison.rows[0], prices(comparison)
    end = dear.single_flops if cost == "flops" else dear.single_parameters
    points = [(_cost(row, base, cost), statistics.fmean(row.delta_m)) for row in rows]
    x = Scale(*reach([each for each, _ in points], 1.0, end), 46, WIDTH - 16)
    y = Scale(*reach([each for _, each in points], 0.0), 226, 24)
    what = "FLOPs" if cost == "flops" else "parameters"
    parts = [
        left_axis(y, (46, WIDTH - 16), "delta_m, %"),
        bottom_axis(x, (24, 226), f"{what}, relative to joint training", "x"),
        tag("line", x1=46, x2=WIDTH - 16, y1=y(0), y2=y(0), class_="zero"),
    ]
    if math.isfinite(points[0][1]):
        line = [(x(points[0][0]), y(points[0][1])), (x(end), y(0))]
        parts.append(tag("polyline", points=" ".join(f"{a},{b}" for a, b in line), class_="chord"))
    known = [point for point in points if math.isfinite(point[1])]
    parts.append(stairs(pareto([*known, (end, 0.0)]), x, y, "front"))
    curves = _curves(comparison, cost, end)
    parts += [
        tag("polygon", points=_points((x(a), y(b)) for a, b in curve.band), class_=f"band {colour}")
        for colour, curve in curves
    ]
    parts += [
        tag(
            "polyline",
            tag("title", f"rule {curve.rule}"),
            points=_points((x(a), y(b)) for a, b in curve.line),
            class_=f"line {colour}",
        )
        for colour, curve in curves
    ]
    parts.append(tag("circle", cx=x(end), cy=y(0), r=6, class_="apart"))
    parts.append(tag("text", "separate", x=x(end) - 8, y=y(0) - 9, class_="point end"))
    for place, (row, point) in enumerate(zip(rows, points, strict=True)):
        if math.isfinite(point[1]):
            own = (x(point[0]), y(point[1]))
            title = tag("title", f"{row.name}: {point[0]:.2f}x, {point[1]:+.2f} %")
            parts.append(tag("g", mark(row.role, *own, series(place)), title))
            parts.append(tag("text", place + 1, x=own[0] + 7, y=own[1] - 6, class_="point"))
    said = "; ".join(
        f"{row.name} {a:.2f}x {b:+.2f}" for row, (a, b) in zip(rows, points, strict=True)
    )
    label = f"delta_m against {what}: {said}; separate networks {end:.2f}x at 0."
    return drawing(WIDTH, 266, *parts, label=label)


class _Curve(NamedTuple):
    """A rule over its sizes, from joint training to separate networks.

    Attributes:
        rule: its name.
        line: cost and mean delta_m, dearer ones later.
        band: the corners of what lies within a standard deviation of the line.
    """

    rule: str
    line: list[tuple[float, float]]
    band: list[tuple[float, float]]


def _curves(comparison: Comparison, cost: str, end: float) -> list[tuple[str, _Curve]]:
    """Return the curve of each rule, with the class of its first row's colour."""
    rows, base = networks(comparison), comparison.rows[0]
    found = []
    for rule, own in by_rule(rows).items():
        sizes = [base, *own]
        spread_at = [
            (_cost(row, base, cost), *mean_and_deviation(row.delta_m))
            for row in sizes
            if all(map(math.isfinite, row.delta_m))
        ]
        every = sorted([*spread_at, (end, 0.0, 0.0)])
        line = [(a, mean) for a, mean, _ in every]
        upper = [(a, mean + width) for a, mean, width in every]
        lower = [(a, mean - width) for a, mean, width in every]
        found.append((series(rows.index(own[0])), _Curve(rule, line, [*upper, *lower[::-1]])))
    return found


def _cost(row: Row, base: Row, cost: str) -> float:
    """What a network costs, in multiples of the first joint one."""
    return row.flops / base.flops if cost == "flops" else row.n_parameters / base.n_parameters


def _points(corners: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{a},{b}" for a, b in corners)
