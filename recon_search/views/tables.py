"""Tables of comparisons and of metrics, for the terminal."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Mapping
from typing import get_args

from rich.console import Console
from rich.table import Table

from recon_search.runs.comparison import Comparison, Row, Values
from recon_search.runs.paired import Difference
from recon_search.tasks.scoring import Average, delta_m, mean_and_deviation, measured
from recon_search.tasks.task import Metrics
from recon_search.views.markup import escape

MANY_COLUMNS = 6
"""Metrics over all tasks above which a comparison has no column for each (see `narrow`)."""

UNLIMITED = 10_000
"""Columns of a terminal that breaks no line."""


def comparison_table(comparison: Comparison) -> Table:
    """The comparison: metrics, delta_m, the paired difference to the split, cost and its worth."""
    n_seeds = len(comparison.seeds)
    over = f"mean ± standard deviation over {n_seeds} seeds" if n_seeds > 1 else "one seed"
    intervals = (
        "In brackets 95 % confidence intervals; p Holm-corrected within joint, controls and rules; "
        "above line: delta_m minus that of a mixture of joint training and separate networks of "
        "the same cost, * where the interval holds no 0."
    )
    table = Table(
        title=f"Test data, {over}",
        title_justify="left",
        caption=intervals if n_seeds > 1 else None,
        caption_justify="left",
    )
    table.add_column("network", no_wrap=True)
    columns = [(task, name) for task, own in comparison.directions.items() for name in own]
    averages = averages_of(comparison)
    prices = list(comparison.rows[0].prices)
    for heading in (
        *(f"{task}\n{name} {comparison.unit(task, name)}".rstrip() for task, name in columns),
        *("delta_m\n%" if len(averages) == 1 else f"delta_m\n{each}, %" for each in averages),
        "minus split\n(paired)",
        "p",
        "loss\n%",
        "para-\nmeters",
        "FLOPs",
        *(f"above line\n{name}" for name in prices),
        f"cos < {comparison.threshold}\n% of pairs",
    ):
        table.add_column(escape(heading), justify="right", overflow="fold")
    base = comparison.rows[0]
    if all(row.role != "separate" for row in comparison.rows):
        ratio = comparison.single_parameters / base.n_parameters
        singles = [_spread(comparison.single[task][name]) for task, name in columns]
        filled = [*singles, *["0"] * len(averages), "", "", "", f"{ratio:.2f}x", ""]
        table.add_row("single-task models", *filled, *[""] * len(prices), "", style="dim")
    for row in comparison.rows:
        difference = row.minus_split
        heights = [own.above for own in row.prices.values()]
        is_end = row.role == "separate" or row is base
        table.add_row(
            escape(row.name),
            *(_spread(row.metrics[task][name]) for task, name in columns),
            *(
                "0" if row.role == "separate" else _spread(values, sign=True)
                for values in deltas(comparison, row).values()
            ),
            "" if difference is None else show_interval(difference),
            show_p(difference),
            _spread(row.loss, sign=True) if row.loss and row.role != "separate" else "",
            f"{row.n_parameters / base.n_parameters:.2f}x",
            f"{row.flops / base.flops:.2f}x",
            *("" if each is None or is_end else _show_height(each) for each in heights),
            "" if row.conflicts is None else f"{100 * row.conflicts:.1f}",
            style={"split": "bold", "separate": "dim"}.get(row.role),
        )
    return table


def averages_of(comparison: Comparison) -> list[Average]:
    """The averages that delta_m can be, where they differ; that which judged goes first."""
    others: list[Average] = [each for each in get_args(Average) if each != comparison.average]
    numbers = {len(own) for own in comparison.directions.values()}
    return [comparison.average, *(others if len(numbers) > 1 else [])]


def deltas(comparison: Comparison, row: Row) -> dict[Average, list[float]]:
    """delta_m of a row by each of these averages, one value a seed."""
    seeds = range(len(row.delta_m))
    single = [_at(comparison.single, seed) for seed in seeds]
    judged_by = measured(comparison.directions, single)
    found = {
        average: [delta_m(_at(row.metrics, n), single[n], judged_by, average) for n in seeds]
        for average in averages_of(comparison)[1:]
    }
    return {comparison.average: row.delta_m, **found}


def _at(values: Values, seed: int) -> Metrics:
    """The metrics of one seed."""
    return {
        task: {name: seeds[seed] for name, seeds in own.items()} for task, own in values.items()
    }


def metrics_table(title: str, metrics: Metrics, units: Mapping[str, Mapping[str, str]]) -> Table:
    """The metrics of one model, a row each, with their units."""
    table = Table(title=escape(title), title_justify="left")
    table.add_column("task")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("unit")
    for task, own in metrics.items():
        for place, (name, value) in enumerate(own.items()):
            shown = f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"
            unit = units.get(task, {}).get(name, "")
            table.add_row(escape("" if place else task), escape(name), shown, escape(unit))
    return table


def full_width(table: Table) -> int:
    """Return the columns that a table takes where no line is broken; titles are not counted."""
    bare = copy.copy(table)
    bare.title = bare.caption = None
    return Console(width=UNLIMITED).measure(bare).maximum


def delta_of_task(row: Row, comparison: Comparison, task: str) -> float:
    """delta_m of one task alone, of means over seeds, in percent."""
    own = {task: comparison.directions[task]}
    return delta_m(_means(row.metrics, task), _means(comparison.single, task), own)


def _means(values: Mapping[str, Mapping[str, list[float]]], task: str) -> Metrics:
    return {task: {name: statistics.fmean(seeds) for name, seeds in values[task].items()}}


def _spread(values: list[float], *, sign: bool = False) -> str:
    return _show(mean_and_deviation(values), len(values), sign=sign)


def _show(spread: tuple[float, float], n: int, *, sign: bool) -> str:
    """A mean and its deviation; one value has none."""
    mean = f"{spread[0]:{'+' if sign else ''}.2f}"
    return mean if n == 1 else f"{mean} ± {spread[1]:.2f}"


def show_interval(difference: Difference) -> str:
    """A mean and its confidence interval, if it has one."""
    mean = f"{difference.mean:+.2f}"
    if difference.interval is None:
        return mean
    low, high = difference.interval
    return escape(f"{mean} [{low:+.2f}, {high:+.2f}]")


def show_p(difference: Difference | None) -> str:
    """The corrected p value, if there is one."""
    return "" if difference is None else write_p(difference.adjusted)


def write_p(p: float | None) -> str:
    """A p value; "" where there is none."""
    if p is None:
        return ""
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def _show_height(above: Difference) -> str:
    """A mean, with a star where its confidence interval holds no 0."""
    interval = above.interval
    is_sure = interval is not None and (interval[0] > 0 or interval[1] < 0)
    return f"{above.mean:+.2f}{'*' if is_sure else ''}"
