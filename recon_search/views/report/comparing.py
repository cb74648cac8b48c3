"""The comparison on the page: its table, every task, its plots."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from recon_search.runs.comparison import Comparison, Row, by_rule
from recon_search.runs.paired import Difference, mean_of
from recon_search.tasks.scoring import mean_and_deviation
from recon_search.views.report.answer import networks, prices, said, the_split
from recon_search.views.report.grid import FEW, Grid, Line
from recon_search.views.report.svg import (
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
from recon_search.views.tables import MANY_COLUMNS, delta_of_task, show_p
from recon_search.views.trial_plots import pareto

BESIDE = 3
"""Metrics over all tasks that have columns beside delta_m; of more the tasks have a table."""

WIDTH = 420
"""Units of charts; drawn a little larger or smaller, as the window asks for."""


def comparison_grid(comparison: Comparison) -> Grid:
    """Every network: delta_m, the paired difference and costs, then metrics where there are few.

    The first column numbers the rows, for the plots. What no row has (intervals of a single seed)
    has no column.
    """
    base, split, cost = comparison.rows[0], the_split(comparison), prices(comparison)
    columns = [(task, name) for task, own in comparison.directions.items() for name in own]
    columns = columns if len(columns) <= BESIDE else []
    headings = [
        "#",
        "network",
        "delta_m, %\n(95 %)" if len(comparison.seeds) > 1 else "delta_m, %",
        "minus the split,\npaired (95 %)" if len(comparison.seeds) > 1 else "minus\nthe split",
        "p",
        "parameters",
        "FLOPs",
        f"conflicts, %\n(cos < {comparison.threshold:g})",
        *(f"{task}\n{name} {comparison.unit(task, name)}".rstrip() for task, name in columns),
    ]
    lines = []
    for place, row in enumerate(networks(comparison), start=1):
        own = mean_of(row.delta_m)
        gap = row.minus_split
        lines.append(
            Line(
                [
                    str(place),
                    row.name,
                    _bracketed(spread(row.delta_m, sign=True), own),
                    "" if gap is None else _bracketed(f"{gap.mean:+.2f}", gap),
                    show_p(gap),
                    f"{row.n_parameters / base.n_parameters:.2f}x",
                    f"{row.flops / base.flops:.2f}x",
                    "" if row.conflicts is None else f"{100 * row.conflicts:.1f}",
                    *(spread(row.metrics[task][name]) for task, name in columns),
                ],
                "bold" if row is split else "",
            )
        )
    lines.append(
        Line(
            [
                "",
                f"{len(comparison.single)} separate networks",
                "0",
                *("", ""),
                f"{cost.single_parameters:.2f}x",
                f"{cost.single_flops:.2f}x",
                "",
                *(spread(comparison.single[task][name]) for task, name in columns),
            ],
            "dim",
        )
    )
    known = [place for place in range(len(headings)) if any(line.cells[place] for line in lines)]
    lines = [Line([line.cells[place] for place in known], line.style) for line in lines]
    n = len(comparison.seeds)
    caption = "Test data, mean ± standard deviation over seeds" if n > 1 else "Test data, one seed"
    return Grid(caption, [headings[place] for place in known], lines, _WORDS, 1)


_WORDS = frozenset({1})


def task_grid(comparison: Comparison) -> Grid:
    """Every task and metric by every network: those the split serves worst come first.

    Of many tasks, all but the worst and the best are shown where a person asks for them.
    """
    split = the_split(comparison)
    worth = {task: delta_of_task(split, comparison, task) for task in comparison.directions}
    order = sorted(worth, key=lambda task: (math.isnan(worth[task]), worth[task]))
    few, n_columns = len(order) <= FEW, sum(map(len, comparison.directions.values()))
    write = spread if n_columns <= MANY_COLUMNS else _mean
    shown = order if few else [*order[: FEW // 2], *order[-FEW // 2 :]]
    headings = [
        "task",
        "metric",
        "split to\nseparate, %",
        "separate\nnetworks",
        *(f"{place}: {row.name}" for place, row in enumerate(networks(comparison), start=1)),
    ]
    lines = [
        Line(
            [
                task,
                f"{name} {comparison.unit(task, name)}".rstrip(),
                "" if place else f"{worth[task]:+.2f}",
                write(comparison.single[task][name]),
                *(write(row.metrics[task][name]) for row in networks(comparison)),
            ],
            extra=task not in shown,
        )
        for task in order
        for place, name in enumerate(comparison.directions[task])
    ]
    return Grid(
        "Every task, means over seeds; the task that the split serves worst comes first",
        headings,
        lines,
        frozenset({0, 1}),
    )


def dot_plot(comparison: Comparison) -> Markup:
    """Draw delta_m of every network: a dot a seed, the mean and its interval."""
    rows = networks(comparison)
    height = 14 + 40 * len(rows) + 40
    every = [mean_of(row.delta_m) for row in rows]
    ends = [end for own in every for end in own.interval or (own.mean,)]
    values = [value for row in rows for value in row.delta_m]
    low, high = reach([*values, *_bounded(ends, values)], 0.0)
    x = Scale(low, high, 14, WIDTH - 14)
    bottom = height - 40
    parts = [bottom_axis(x, (6, bottom), "delta_m on test data, % (right is better)")]
    parts.append(tag("line", x1=x(0), x2=x(0), y1=6, y2=bottom, class_="zero"))
    for place, (row, own) in enumerate(zip(rows, every, strict=True)):
        y = 14 + 40 * place
        name, colour = f"{place + 1}  {_short(row.name)}", series(place)
        parts.append(tag("text", name, x=6, y=y + 4, class_="name"))
        if not math.isfinite(own.mean):
            continue
        if own.interval is not None:
            left, right = x(own.interval[0]), x(own.interval[1])
            parts.append(
                tag("line", x1=left, x2=right, y1=y + 18, y2=y + 18,
                    class_=f"whisker {colour}")
            )  # fmt: skip
        parts += [
            tag("circle", cx=x(value), cy=y + 18, r=3, class_=f"seed {colour}")
            for value in row.delta_m
            if math.isfinite(value)
        ]
        parts.append(mark(row.role, x(own.mean), y + 18, colour))
    said = "; ".join(f"{row.name} {o.mean:+.2f}" for row, o in zip(rows, every, strict=True))
    return drawing(WIDTH, height, *parts, label=f"delta_m of every network in percent: {said}.")


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


def legend(rows: Sequence[Row]) -> list[tuple[str, str, Markup]]:
    """Return number, name and mark of every row."""
    return [
        (
            str(place + 1),
            row.name,
            tag("svg", mark(row.role, 8, 8, series(place)), viewBox="0 0 16 16",
                class_="swatch", aria_hidden="true"),
        )
        for place, row in enumerate(rows)
    ]  # fmt: skip


def spread(values: Sequence[float], *, sign: bool = False) -> str:
    """Write a mean and its deviation; one value has none."""
    mean, deviation = mean_and_deviation(values)
    text = f"{mean:{'+' if sign else ''}.2f}"
    return text if len(values) == 1 else f"{text} ± {deviation:.2f}"


def _bracketed(text: str, found: Difference) -> str:
    """Put the interval, if there is one, below a mean."""
    return text if found.interval is None else f"{text}\n({said(found.interval)})"


def _mean(values: Sequence[float]) -> str:
    mean = statistics.fmean(values)
    return f"{mean:.4f}" if abs(mean) < 1 else f"{mean:.2f}"


def _bounded(ends: Sequence[float], values: Sequence[float]) -> list[float]:
    """Ends of intervals that do not make the values themselves a speck."""
    low, high = reach(values, 0.0, margin=1.0)
    return [min(max(end, low), high) for end in ends if math.isfinite(end)]


def _short(name: str, most: int = 56) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
