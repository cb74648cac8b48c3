"""A comparison of many tasks or networks, or in a narrow terminal: two tables in place of one.

The first has a row a network; the second is transposed, a row a task, with the networks' numbers.
"""

from __future__ import annotations

import math
import statistics

from rich import box
from rich.table import Table

from recon_search.runs.comparison import Comparison
from recon_search.tasks.scoring import mean_and_deviation
from recon_search.views.markup import escape
from recon_search.views.tables import (
    MANY_COLUMNS,
    comparison_table,
    delta_of_task,
    full_width,
    show_interval,
    show_p,
)

FEW_TASKS = 12
"""Above, the worst and the best are shown alone."""
ENDS = 5
"""Tasks at either end."""

NAME = 24
"""Letters of a task's name."""

WITH_CONFLICTS = 100
"""Columns of a terminal that has room for conflicts, too."""


def comparison_tables(comparison: Comparison, width: int) -> list[Table]:
    """Return the tables that show a comparison in so many columns.

    One table where metrics are few and it fits without a line broken, else a table of the networks
    and one of the tasks, of which no column is squeezed.
    """
    if sum(map(len, comparison.directions.values())) <= MANY_COLUMNS:
        whole = comparison_table(comparison)
        if full_width(whole) <= width:
            return [whole]
    return [network_table(comparison, width), task_table(comparison, width)]


def network_table(comparison: Comparison, width: int) -> Table:
    """Every network with its number: delta_m, the paired difference, costs."""
    n_seeds = len(comparison.seeds)
    over = f"mean ± standard deviation over {n_seeds} seeds" if n_seeds > 1 else "one seed"
    has_room = width >= WITH_CONFLICTS
    table = Table(
        title=f"Test data, {over}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("network", min_width=16)
    for name in ("delta_m\n%", "minus split\n(paired)", "p", "para-\nmeters", "FLOPs"):
        table.add_column(name, justify="right", no_wrap=True)
    if has_room:
        table.add_column(f"cos < {comparison.threshold}\n% of pairs", justify="right", no_wrap=True)
    base, flops = comparison.rows[0], comparison.single_flops
    if all(row.role != "separate" for row in comparison.rows):
        dear = "" if flops is None else f"{flops / base.flops:.2f}x"
        size = f"{comparison.single_parameters / base.n_parameters:.2f}x"
        table.add_row("", "single-task models", "0", "", "", size, dear, style="dim")
    for number, row in enumerate(comparison.rows, start=1):
        conflicts = "" if row.conflicts is None else f"{100 * row.conflicts:.1f}"
        gap = row.minus_split
        table.add_row(
            str(number),
            escape(row.name),
            "0" if row.role == "separate" else _spread(mean_and_deviation(row.delta_m), n_seeds),
            "" if gap is None else show_interval(gap),
            show_p(gap),
            f"{row.n_parameters / base.n_parameters:.2f}x",
            f"{row.flops / base.flops:.2f}x",
            *([conflicts] if has_room else []),
            style={"split": "bold", "separate": "dim"}.get(row.role),
        )
    return table


def task_table(comparison: Comparison, width: int) -> Table:
    """Every task by every network: the mean over seeds; those the split serves worst come first.

    Of many tasks the worst and the best are shown, of many networks as many as there is room for.
    """
    rows = [row for row in comparison.rows if row.role != "separate"]  # they are "single"
    split = next(place for place, row in enumerate(rows) if row.role == "split")
    worth = {task: delta_of_task(rows[split], comparison, task) for task in comparison.directions}
    order = sorted(worth, key=lambda task: (math.isnan(worth[task]), worth[task]))
    left_out = max(0, len(order) - 2 * ENDS) if len(order) > FEW_TASKS else 0
    shown = [*order[:ENDS], *order[-ENDS:]] if left_out else order
    wide = max(len(_name(task)) for task in shown)
    metrics = {
        task: [f"{n} {comparison.unit(task, n)}".rstrip() for n in comparison.directions[task]]
        for task in shown
    }
    wide += max(len(name) for names in metrics.values() for name in names)
    each = 2 + max(5, *(len(value) for task in shown for value in _values(comparison, task)))
    room = max(1, (width - wide - 4) // each - 2)
    places = [split, *(p for p in range(len(rows)) if p != split)][:room]
    places.sort()
    table = Table(
        title="Every task, mean over seeds: networks by their numbers",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        caption=_describe(left_out, len(order), len(rows) - len(places)),
        caption_justify="left",
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for name in ("task", "metric"):
        table.add_column(name, no_wrap=True)
    for name in ("split\n%", "single", *(str(place + 1) for place in places)):
        table.add_column(name, justify="right", no_wrap=True)
    for place, task in enumerate(shown):
        if left_out and place == ENDS:
            table.add_row(f"... {left_out} more ...", style="dim")
        for index, name in enumerate(comparison.directions[task]):
            table.add_row(
                "" if index else escape(_name(task)),
                escape(metrics[task][index]),
                "" if index else f"{worth[task]:+.2f}",
                _mean(comparison.single[task][name]),
                *(_mean(rows[p].metrics[task][name]) for p in places),
            )
    return table


def _describe(left_out: int, n_tasks: int, n_rows: int) -> str:
    said = ["split %: the split network to single-task models."]
    if left_out:
        said.append(f"{left_out} of {n_tasks} tasks lie between.")
    if n_rows:
        said.append(f"{n_rows} networks do not fit.")
    return " ".join(said + ["report.html has all."] * bool(left_out or n_rows))


def _values(comparison: Comparison, task: str) -> list[str]:
    rows = [comparison.single, *(row.metrics for row in comparison.rows)]
    return [_mean(row[task][name]) for row in rows for name in comparison.directions[task]]


def _name(task: str) -> str:
    return task if len(task) <= NAME else f"{task[: NAME - 1]}…"


def _mean(values: list[float]) -> str:
    mean = statistics.fmean(values)
    return f"{mean:.3f}" if abs(mean) < 1 else f"{mean:.2f}"


def _spread(found: tuple[float, float], n: int) -> str:
    return f"{found[0]:+.2f}" if n == 1 else f"{found[0]:+.2f} ± {found[1]:.2f}"
