"""The comparison on the page: its table, every task, its plots."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from markupsafe import Markup

from recon_search.runs.comparison import Comparison, Row
from recon_search.runs.paired import Difference, mean_of
from recon_search.tasks.scoring import mean_and_deviation
from recon_search.views.report.answer import networks, prices, said, the_split
from recon_search.views.report.grid import FEW, Grid, Line, without_empty
from recon_search.views.report.svg import (
    WIDTH,
    Scale,
    bottom_axis,
    drawing,
    mark,
    reach,
    series,
    tag,
)
from recon_search.views.tables import MANY_COLUMNS, delta_of_task, show_p

BESIDE = 3
"""Metrics over all tasks that have columns beside delta_m; of more the tasks have a table."""


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
    n = len(comparison.seeds)
    caption = "Test data, mean ± standard deviation over seeds" if n > 1 else "Test data, one seed"
    return Grid(caption, *without_empty(headings, lines), _WORDS, 1)


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
