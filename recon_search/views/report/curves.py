"""Training curves, and conflicts before and after the split."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from recon_search.conflict.scores import ConflictScores
from recon_search.runs.comparison import Comparison
from recon_search.views.report.answer import networks, the_split
from recon_search.views.report.svg import (
    Scale,
    bottom_axis,
    drawing,
    left_axis,
    polyline,
    reach,
    series,
    tag,
)
from recon_search.views.tables import delta_of_task

History = Sequence[Mapping[str, Any]]
"""Records of the epochs of one training."""

FEW_TASKS = 8
"""Tasks of which each has curves of its own; of more, the worst and the best served have."""

FEW_LAYERS = 24
"""Layers of which conflicts are drawn before and after."""


def loss_plot(
    comparison: Comparison,
    histories: Mapping[str, Sequence[History]],
    switches: Sequence[int] = (),
) -> Markup:
    """Draw the validation loss of every row, relative to separate networks at their end.

    The mean over tasks, which may have losses of any scale; the mean over seeds.

    Args:
        comparison: of the rows.
        histories: by name of a row, or "single TASK", one a seed.
        switches: the epochs after which networks are split while they train, if any are.
    """
    single = {
        task: _last(histories[f"single {task}"], task)
        for task in comparison.single
        if f"single {task}" in histories
    }
    known = {task: loss for task, loss in single.items() if loss and math.isfinite(loss)}

    def value(record: Mapping[str, Any]) -> float:
        own = record["validation"]
        shares = [own[task]["loss"] / loss for task, loss in known.items() if task in own]
        return statistics.fmean(shares) if shares else math.nan

    lines = {
        row.name: _mean_curve(histories.get(row.name, ()), value) for row in networks(comparison)
    }
    return _curves(
        [lines[row.name] for row in networks(comparison)],
        [row.name for row in networks(comparison)],
        "loss / that of separate networks",
        "Validation loss by epoch, relative to separate networks at their end, mean over tasks",
        reference=1.0,
        switches=switches,
        wide=True,
    )


def task_plots(
    comparison: Comparison, histories: Mapping[str, Sequence[History]]
) -> list[tuple[str, Markup]]:
    """Draw the first metric of every task by epoch, and that of its separate networks, dashed."""
    split = the_split(comparison)
    tasks = list(comparison.directions)
    if len(tasks) > FEW_TASKS:
        tasks.sort(key=lambda task: delta_of_task(split, comparison, task))
        tasks = [*tasks[:3], *tasks[-3:]]
    plots = []
    for task in tasks:
        metric = next(iter(comparison.directions[task]))

        def value(record: Mapping[str, Any], task: str = task, metric: str = metric) -> float:
            return float(record["validation"].get(task, {}).get(metric, math.nan))

        names = [row.name for row in networks(comparison)]
        lines = [_mean_curve(histories.get(name, ()), value) for name in names]
        lines.append(_mean_curve(histories.get(f"single {task}", ()), value))
        what = f"{metric} {comparison.unit(task, metric)}".rstrip()
        label = f"Validation {what} of {task} by epoch"
        plots.append((f"{task}", _curves(lines, [*names, "separate"], what, label)))
    return plots


def conflict_plot(
    before: ConflictScores, after: ConflictScores, threshold: float, split: Sequence[str]
) -> Markup:
    """Draw, of the layers that conflict most and of those that are split, the share of steps.

    An open circle stands for joint training, a full one for the split network.
    """
    first, second = (
        dict(zip(each.layers, each.shares(threshold).nanmean(-1).tolist(), strict=True))
        for each in (before, after)
    )
    known = [layer for layer in first if layer in second]
    chosen = {layer for layer in split if layer in first}
    for layer in sorted(known, key=lambda layer: -_worth(first[layer])):
        if len(chosen) < FEW_LAYERS:
            chosen.add(layer)
    layers = [layer for layer in known if layer in chosen][: 2 * FEW_LAYERS]
    values = [100 * found[layer] for layer in layers for found in (first, second)]
    left, width, row = 178, 480, 18
    x = Scale(*reach(values, 0.0, margin=0.04), left, width - 16)
    bottom = 8 + row * len(layers)
    parts: list[object] = [bottom_axis(x, (4, bottom), "% of measured steps and pairs")]
    for place, layer in enumerate(layers):
        y = 8 + row * (place + 0.5)
        own = "layer end" + (" marked" if layer in split else "")
        parts.append(tag("text", layer[-28:], x=left - 8, y=y + 4, class_=own))
        a, b = 100 * first[layer], 100 * second[layer]
        if math.isfinite(a) and math.isfinite(b):
            parts.append(tag("line", x1=x(a), x2=x(b), y1=y, y2=y, class_="move"))
        if math.isfinite(a):
            parts.append(tag("circle", cx=x(a), cy=y, r=4, class_="was"))
        if math.isfinite(b):
            parts.append(tag("circle", cx=x(b), cy=y, r=4, class_="now"))
    label = (
        f"Share of conflicts with S = {threshold:g} by layer: joint training "
        f"{100 * before.share(threshold):.1f} % of all, split {100 * after.share(threshold):.1f} %."
    )
    return drawing(width, bottom + 40, *parts, label=label)


def _curves(
    lines: Sequence[Sequence[float]],
    names: Sequence[str],
    axis: str,
    label: str,
    *,
    reference: float | None = None,
    switches: Sequence[int] = (),
    wide: bool = False,
) -> Markup:
    """Draw lines by epoch; the last of more lines than series names is the reference."""
    width, bottom = (420, 200) if wide else (340, 178)
    n = max((len(line) for line in lines), default=0)
    also = [] if reference is None else [reference]
    low, high = reach((value for line in lines for value in line), *also)
    # A first epoch that is far off would flatten all others, and is left out.
    ends = reach((value for line in lines for value in line[1:]), *also)
    if n > 2 and high - low > 3 * (ends[1] - ends[0]):
        low, high = ends
    x = Scale(1, max(n, 2), 46, width - 14)
    y = Scale(low, high, bottom, 24)
    parts: list[object] = [
        left_axis(y, (46, width - 14), axis),
        bottom_axis(x, (24, bottom), "epoch", most=min(6, max(n - 1, 1))),
    ]
    if reference is not None:
        parts.append(
            tag("line", x1=46, x2=width - 14, y1=y(reference), y2=y(reference), class_="zero")
        )
    for switch in switches:
        at = x(switch)
        parts.append(tag("line", x1=at, x2=at, y1=24, y2=bottom, class_="chord"))
        parts.append(tag("text", "split", x=at + 4, y=34, class_="tick"))
    for place, (line, name) in enumerate(zip(lines, names, strict=True)):
        points = [(x(e), y(v)) for e, v in enumerate(line, start=1) if low <= v <= high]
        if not points:
            continue
        class_ = "line apart" if name == "separate" else f"line {series(place)}"
        parts.append(tag("g", polyline(points, class_), tag("title", name)))
    last = [f"{name} {line[-1]:.4g}" for line, name in zip(lines, names, strict=True) if line]
    return drawing(width, bottom + 38, *parts, label=f"{label}. In the end: {'; '.join(last)}.")


def _mean_curve(
    histories: Sequence[History], value: Callable[[Mapping[str, Any]], float]
) -> list[float]:
    """Mean over seeds, as long as all go on."""
    columns = zip(*([value(record) for record in own] for own in histories), strict=False)
    return [statistics.fmean(column) for column in columns]


def _last(histories: Sequence[History], task: str) -> float:
    ends = [own[-1]["validation"][task]["loss"] for own in histories if own]
    return statistics.fmean(ends) if ends else math.nan


def _worth(share: float) -> float:
    return 0.0 if math.isnan(share) else share
