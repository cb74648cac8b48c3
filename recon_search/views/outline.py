"""A split network in the terminal: its layers as a tree, and its cost as a table."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from typing import Any

import torch
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from recon_search.graph.anatomy import Anatomy, Row
from recon_search.graph.naming import name_of, short
from recon_search.graph.partition import Group
from recon_search.views.markup import escape

FEW_NAMES = 6
"""Tasks or groups that are named in a line."""

MANY_GROUPS = 12
"""Above, the costs of the first groups alone have rows of their own in a terminal."""


def outline(anatomy: Anatomy) -> Tree:
    """Return the layers in order, under a heading each time that the branches change.

    Every line says whose weights a layer has: the words alone tell, colour repeats them.
    """
    size = "x".join(map(str, anatomy.size))
    n_more = len(anatomy.tasks) - FEW_NAMES
    more = f" and {n_more} more" if n_more > 0 else ""
    tree = Tree(
        Text.assemble(
            (anatomy.title, "bold"),
            f" on {size}, tasks {', '.join(anatomy.tasks[:FEW_NAMES])}{more}: "
            f"{anatomy.n_split} of {len(anatomy.layers)} layers split",
        ),
        guide_style="dim",
    )
    rows = anatomy.rows()
    width = max((len(row.label) for row in rows), default=0)
    for runs, section in itertools.groupby(rows, lambda row: row.runs):
        part = tree.add(_heading(runs))
        for row in section:
            part.add(_line(row, width))
    return tree


def cost_table(anatomy: Anatomy, most: int = sys.maxsize) -> Table:
    """Return parameters, FLOPs and, where it was timed, the latency of trunk and branches.

    Args:
        anatomy: of the split network.
        most: groups that have a row; the others have one together.
    """
    timed = anatomy.latency is not None
    table = Table(title="What the split costs, without heads", title_justify="left")
    table.add_column("", no_wrap=True)
    for name in ("parameters", "FLOPs", "latency")[: 3 if timed else 2]:
        table.add_column(name, justify="right", no_wrap=True)
        table.add_column("x unsplit", justify="right", no_wrap=True)
    for row in _fold(cost_rows(anatomy), most):
        seconds = [f"{1e3 * row['seconds']:.3g} ms", _times(row["time_ratio"])] if timed else []
        table.add_row(
            escape(row["name"]),
            short(row["parameters"]),
            _times(row["parameter_ratio"]),
            short(row["flops"]),
            _times(row["flop_ratio"]),
            *seconds,
            style="bold" if escape(row["name"]) == "total" else None,
            end_section=escape(row["name"]) == "total",
        )
    notes = []
    if reused := anatomy.reused_parameters:
        notes.append(
            f"{short(reused)} of the parameters that all tasks share lie after a fork: they are "
            "used once per branch, and their FLOPs are billed there."
        )
    if timed:
        notes.append(
            "Latency is an estimate: each operation of the unsplit backbone timed on this CPU "
            f"(one input, {_threads()}, median of 5), billed to every branch "
            "that computes it."
        )
    table.caption = "\n".join(notes)
    table.caption_justify = "left"
    return table


def _fold(rows: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Add up the groups beyond the first `most`; the last three rows are no groups."""
    groups, others = rows[:-3], rows[-3:]
    kept, rest = groups[:most], groups[most:]
    if len(rest) < 2:
        return rows
    total = {
        name: None if rest[0][name] is None else sum(row[name] for row in rest)
        for name in rest[0]
        if name not in ("name", "tasks")
    }
    return [*kept, {**total, "name": f"{len(rest)} more groups", "tasks": []}, *others]


def cost_rows(anatomy: Anatomy) -> list[dict[str, Any]]:
    """Return the table of cost as plain rows: each group, the total, unsplit, separate models."""
    cost, latency = anatomy.cost, anatomy.latency
    base = (cost.base_parameters, cost.base_flops, latency.base if latency else None)
    total = (cost.total_parameters, cost.total_flops, latency.total if latency else None)
    n_tasks = len(anatomy.tasks)
    rows: list[tuple[str, Group, int, int, float | None]] = [
        (
            "all tasks (trunk)" if group == anatomy.tasks else name_of(group),
            group,
            cost.parameters.get(group, 0),
            cost.flops.get(group, 0),
            latency.groups.get(group, 0.0) if latency else None,
        )
        for group in anatomy.groups
    ]
    rows.append(("total", anatomy.tasks, *total))
    rows.append(("unsplit", anatomy.tasks, *base))
    rows.append(
        (
            f"{n_tasks} separate backbones",
            anatomy.tasks,
            n_tasks * cost.base_parameters,
            n_tasks * cost.base_flops,
            n_tasks * latency.base if latency else None,
        )
    )
    return [
        {
            "name": name,
            "tasks": list(tasks),
            "parameters": parameters,
            "flops": flops,
            "seconds": seconds,
            "parameter_ratio": _ratio(parameters, base[0]),
            "flop_ratio": _ratio(flops, base[1]),
            "time_ratio": _ratio(seconds, base[2]),
        }
        for name, tasks, parameters, flops, seconds in rows
    ]


def as_json(anatomy: Anatomy) -> dict[str, Any]:
    """Return everything the tree and the table say, as plain values, every layer by itself."""
    return {
        "backbone": anatomy.title,
        "input": list(anatomy.size),
        "tasks": list(anatomy.tasks),
        "layers": [
            {
                "layer": row.layers[0],
                "n_parameters": row.n_parameters,
                "computed_for": [list(group) for group in row.runs],
                "copies": [list(group) for group in row.copies],
            }
            for row in anatomy.layers
        ],
        "cost": cost_rows(anatomy),
    }


def _heading(runs: tuple[Group, ...]) -> Text:
    if len(runs) == 1:
        return Text("computed once, for all tasks", "bold")
    return Text(f"computed {len(runs)} times: {_names(runs)}", "bold")


def _names(groups: Sequence[Group]) -> str:
    """Name groups; of many the first."""
    shown = [name_of(group) for group in groups[:FEW_NAMES]]
    more = len(groups) - len(shown)
    return " | ".join([*shown, *([f"{more} more"] if more else [])])


def _line(row: Row, width: int) -> Text:
    size = short(row.n_parameters)
    text = Text(f"{row.label:<{width}}  {size:>6}")
    if len(row.copies) > 1:
        text.append(f" x {len(row.copies)}  private to {_names(row.copies)}")
        text.stylize("bold red")
    elif len(row.runs) > 1:
        text.append("      same weights in every branch", "dim")
    return text


def _ratio(value: float | None, base: float | None) -> float | None:
    return None if value is None or not base else value / base


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}x"


def _threads() -> str:
    count = torch.get_num_threads()
    return f"{count} thread{'s' if count > 1 else ''}"
