"""Data as tables, and as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from recon_search.data.source import PARTS
from recon_search.stages.findings import RELIABLE, Examination, TaskFacts, advise
from recon_search.views.markup import escape

SHOWN = 20
"""Classes of a task, unreadable samples, doubles and pairs of tasks that are shown."""

BARS = " ▁▂▃▄▅▆▇█"


def data_summary(found: Examination) -> dict[str, Any]:
    """Everything that was found as plain values, and the sentences of advice."""
    overlaps = [{**asdict(pair), "share": pair.share} for pair in found.overlaps]
    return {**asdict(found), "overlaps": overlaps, "advice": advise(found)}


def data_tables(found: Examination) -> Iterator[Table]:
    """Tables of what was found, those that have rows: tasks, classes, numbers, pairs of tasks."""
    yield _tasks(found)
    if any(task.classes for task in found.tasks):
        yield _classes(found.tasks)
    if any(task.numbers for task in found.tasks):
        yield _numbers(found.tasks)
    if found.overlaps:
        yield _overlaps(found)


def fault_lines(found: Examination) -> list[str]:
    """What would end a run, a line each."""
    return shorten(found.unreadable, "unreadable samples")


def double_lines(found: Examination) -> list[str]:
    """Images that stand in two parts, a line each."""
    return shorten([f"Equal: {a} and {b}" for a, b in found.doubles], "equal images")


def shorten(lines: Sequence[str], what: str) -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], *([f"... and {more} more {what}"] if more > 0 else [])]


def _table(title: str, left: Sequence[str], right: Sequence[str], caption: str = "") -> Table:
    table = Table(
        title=title, title_justify="left", caption=escape(caption) or None, caption_justify="left"
    )
    for name in left:
        table.add_column(name, overflow="fold", max_width=28)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _tasks(found: Examination) -> Table:
    table = _table("Samples, and how many have a label", ["task", "kind"], [*PARTS, "missing"])
    table.add_row(
        "all samples", "", *(f"{found.samples[part]:,}" for part in PARTS), "", style="bold"
    )
    for task in found.tasks:
        n = sum(task.samples.values())
        missing = 1 - sum(task.labelled.values()) / n if n else 0.0
        counts = (f"{task.labelled[part]:,}" for part in PARTS)
        table.add_row(escape(task.name), escape(task.kind), *counts, f"{missing:.1%}")
    return table


def _classes(tasks: Sequence[TaskFacts]) -> Table:
    table = _table("Classes and labels", ["task", "class"], [*PARTS, "share of train"])
    table.add_column("")
    for task in tasks:
        total = max(task.labelled["train"], 1)
        top = max((own["train"] for own in task.classes.values()), default=0) or 1
        for place, (name, own) in enumerate(task.classes.items()):
            if place == SHOWN:
                table.add_row("", f"... {len(task.classes) - SHOWN} more", *[""] * 5)
                break
            table.add_row(
                "" if place else escape(task.name),
                escape(name),
                *(f"{own[part]:,}" for part in PARTS),
                f"{own['train'] / total:.1%}",
                "█" * round(12 * own["train"] / top),
            )
        if task.classes:
            table.add_section()
    return table


def _numbers(tasks: Sequence[TaskFacts]) -> Table:
    table = _table("Numbers", ["task", "part"], ["least", "mean", "deviation", "greatest"])
    table.add_column("histogram", no_wrap=True)
    for task in tasks:
        for place, spreads in enumerate(task.numbers[:SHOWN]):
            name = task.name if len(task.numbers) == 1 else f"{task.name} {place + 1}"
            name = f"{name} ({task.unit})" if task.unit else name
            for part, own in spreads.items():
                table.add_row(
                    escape(name) if part == next(iter(spreads)) else "",
                    part,
                    *(
                        f"{value:.4g}"
                        for value in (own.least, own.mean, own.deviation, own.greatest)
                    ),
                    bars(own.histogram),
                )
            table.add_section()
    return table


def bars(counts: Sequence[int]) -> str:
    """A histogram in a line; what is not zero shows."""
    top = max(counts, default=0) or 1
    return "".join(BARS[-(-8 * count // top)] for count in counts)


def _overlaps(found: Examination) -> Table:
    pairs = sorted(found.overlaps, key=lambda pair: pair.share)
    table = _table(
        "Training samples with labels of both",
        ["task", "and"],
        ["both", "either", "both of either"],
        f"... and {len(pairs) - SHOWN} pairs that share more" if len(pairs) > SHOWN else "",
    )
    for pair in pairs[:SHOWN]:
        table.add_row(
            escape(pair.first),
            escape(pair.second),
            f"{pair.both:,}",
            f"{pair.either:,}",
            f"{pair.share:.1%}",
            style="yellow" if pair.share < RELIABLE else None,
        )
    return table
