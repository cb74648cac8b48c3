"""Heat maps of conflict: layers by thresholds, layers by tasks, tasks by tasks.

A slider for S and a choice of tasks change them; what is drawn without a script is the default.
"""

from __future__ import annotations

import base64
import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from recon_search.conflict.scores import ConflictScores
from recon_search.graph.naming import one_line
from recon_search.views.report.svg import drawing, tag

LEVELS = 10
"""Colours beside that of zero."""

UNKNOWN = 255
"""Stands for pairs that never met."""

MANY_PAIRS = 45
"""Ten tasks: above, only the pairs that conflict most can be chosen."""
TOP_PAIRS = 20

LABEL, CELL, BAR = 168, 12, 96
"""Units of the layer's name, of the width of a threshold, and of the value at S between them."""

TOP_LETTERS = 20
"""Of the name of a task above a map."""

Shares = NDArray[np.float64]


@dataclass(frozen=True)
class HeatMaps:
    """What is drawn and what a script needs to draw it anew.

    Attributes:
        layers: the map of layers by thresholds.
        tasks: that of layers by tasks at S; None of two tasks.
        pairs: that of tasks by tasks at S; None of two tasks.
        choices: what can be shown of the first map, the mean over all pairs first.
        thresholds: in the order of the slider.
        start: the number of the recipe's.
        data: plain values for the script.
    """

    layers: Markup
    tasks: Markup | None
    pairs: Markup | None
    choices: list[str]
    thresholds: list[str]
    start: int
    data: dict[str, Any]


def heat_maps(scores: ConflictScores, threshold: float, marked: Collection[str]) -> HeatMaps:
    """Draw the maps.

    Args:
        scores: of a probe.
        threshold: S, where the slider stands at first.
        marked: layers that are split.
    """
    hundredths = sorted({round(100 * threshold), *range(-50, 1, 2)})
    thresholds = [each / 100 for each in hundredths]
    start = hundredths.index(round(100 * threshold))
    # (thresholds, L, pairs)
    shares = np.stack([scores.shares(each).double().cpu().numpy() for each in thresholds])
    names, found = _choices(scores, shares)
    maps = [each.round(2) for each in found]  # whole percent, as the script knows them
    top = max(float(np.nanmax(each, initial=0.0)) for each in maps) or 1.0
    top = math.ceil(20 * top) / 20
    n_tasks = len(scores.tasks)
    many = n_tasks > 2
    by_task = np.stack(maps[1 : n_tasks + 1]) if many else None  # (T, L, thresholds)
    by_pair = _mean(shares, 1).round(2).T  # (pairs, thresholds)
    return HeatMaps(
        _layer_map(scores, maps[0], thresholds, start, top, marked),
        None if by_task is None else _task_map(scores, by_task[..., start], top, marked),
        _pair_map(scores.tasks, by_pair[:, start], top) if many else None,
        names,
        [f"{each:g}" for each in thresholds],
        start,
        {
            "thresholds": thresholds,
            "top": top,
            "layers": len(scores.layers),
            "tasks": n_tasks,
            "maps": [_encode(each) for each in maps],
            "pairs": _encode(by_pair) if many else "",
        },
    )


def _choices(scores: ConflictScores, shares: Shares) -> tuple[list[str], list[Shares]]:
    """Return names and maps (L, thresholds): of all pairs, each task, and pairs."""
    names, maps = ["all pairs of tasks, mean"], [_mean(shares, 2).T]
    if len(scores.pairs) < 2:
        return names, maps
    for task in scores.tasks:
        own = [place for place, pair in enumerate(scores.pairs) if task in pair]
        names.append(f"{task} against the others")
        maps.append(_mean(shares[..., own], 2).T)
    places: Sequence[int] = range(len(scores.pairs))
    if len(places) > MANY_PAIRS:
        worth = np.nan_to_num(_mean(shares[-1], 0), nan=-1.0)
        places = np.argsort(-worth, kind="stable")[:TOP_PAIRS].tolist()
    for place in places:
        names.append(" and ".join(scores.pairs[place]))
        maps.append(shares[..., place].T)
    return names, maps


def _mean(values: Shares, axis: int) -> Shares:
    """Mean over what is known; nan where nothing is."""
    known = ~np.isnan(values)
    n = known.sum(axis)
    total = np.where(known, values, 0.0).sum(axis)
    found: Shares = np.where(n > 0, total / np.maximum(n, 1), np.nan)
    return found


def _encode(values: Shares) -> str:
    """Percent as bytes, in base64."""
    filled = np.where(np.isnan(values), UNKNOWN, np.round(100 * np.nan_to_num(values)))
    return base64.b64encode(filled.astype(np.uint8).tobytes()).decode()


def level(share: float, top: float) -> str:
    """Name the class of a share's colour."""
    if math.isnan(share):
        return "hx"
    return f"h{min(LEVELS, math.ceil(LEVELS * share / top - 1e-9))}"


def _layer_map(
    scores: ConflictScores,
    shares: Shares,
    thresholds: Sequence[float],
    start: int,
    top: float,
    marked: Collection[str],
) -> Markup:
    n, columns = shares.shape
    row = _row(n)
    head, left = 22, LABEL + BAR
    width = left + CELL * columns + 14
    cells = [
        tag("rect", x=left + CELL * c, y=head + row * r, width=CELL, height=row,
            class_=level(float(shares[r, c]), top))
        for r, c in itertools.product(range(n), range(columns))
    ]  # fmt: skip
    ticks = [
        tag("text", f"{thresholds[c]:g}", x=left + CELL * (c + 0.5), y=14, class_="tick middle")
        for c in range(columns)
        if round(100 * thresholds[c]) % 10 == 0
    ]
    bars = [
        tag("rect", x=LABEL, y=head + row * r + 1, height=max(row - 2, 1), class_="bar",
            width=_bar(float(shares[r, start]), top))
        for r in range(n)
    ]  # fmt: skip
    words = [
        tag("text", _percent(float(shares[r, start])), x=LABEL + 53, y=head + row * (r + 1) - 3,
            class_="tick")
        for r in range(n)
    ]  # fmt: skip
    frame = tag("rect", x=left + CELL * start, y=head, width=CELL, height=row * n, class_="frame")
    height = head + row * n + 6
    worst = np.nan_to_num(shares[:, start]).argsort(kind="stable")[::-1][:3].tolist()
    said = ", ".join(f"{scores.layers[r]} {_percent(float(shares[r, start]))}" for r in worst)
    step = _every(row)
    return drawing(
        width,
        height,
        *ticks,
        tag("text", "at S = ", tag("tspan", f"{thresholds[start]:g}", data_threshold=""), x=LABEL,
            y=14, class_="tick"),
        _names(scores.layers, row, head, marked),
        tag("g", *cells, class_="cells"),
        frame,
        tag("g", *bars, class_="bars"),
        tag("g", *(each for r, each in enumerate(words) if r % step == 0), class_="words",
            data_step=step),
        label=f"Share of measured steps in conflict by layer and threshold. At S = "
        f"{thresholds[start]:g} most: {said}. The ranking below holds numbers.",
        class_="heat",
    )  # fmt: skip


def _task_map(
    scores: ConflictScores, shares: Shares, top: float, marked: Collection[str]
) -> Markup:
    """Draw layers by tasks, (T, L) shares of conflict with all others."""
    n_tasks, n = shares.shape
    row, column = _row(n), _column(n_tasks)
    head = _head(scores.tasks)
    cells = [
        tag("rect", x=LABEL + column * t, y=head + row * r, width=column, height=row,
            class_=level(float(shares[t, r]), top))
        for r, t in itertools.product(range(n), range(n_tasks))
    ]  # fmt: skip
    means = _mean(shares, 1)
    worst = int(np.nan_to_num(means).argmax())
    return drawing(
        LABEL + column * n_tasks + head * 0.8,
        head + row * n + 6,
        _tops(scores.tasks, column, head, LABEL),
        _names(scores.layers, row, head, marked),
        tag("g", *cells, class_="cells"),
        label=f"Conflict of each task with the others, by layer. Most: {scores.tasks[worst]}, "
        f"{_percent(float(means[worst]))} of steps.",
        class_="heat",
    )


def _pair_map(tasks: Sequence[str], shares: Shares, top: float) -> Markup:
    """Draw tasks by tasks, (pairs,) shares of conflict, mean over layers."""
    n = len(tasks)
    square = np.full((n, n), np.nan)
    first, second = np.triu_indices(n, 1)
    square[first, second] = square[second, first] = shares
    size = _column(n)
    head = _head(tasks)
    cells = [
        tag("rect", x=LABEL + size * b, y=head + size * a, width=size, height=size,
            class_="hx" if a == b else level(float(square[a, b]), top))
        for a, b in itertools.product(range(n), range(n))
    ]  # fmt: skip
    worst = int(np.nan_to_num(shares).argmax())
    pair = f"{tasks[first[worst]]} and {tasks[second[worst]]}"
    return drawing(
        LABEL + size * n + head * 0.8,
        head + size * n + 6,
        _tops(tasks, size, head, LABEL),
        _names(tasks, size, head, ()),
        tag("g", *cells, class_="cells"),
        label=f"Conflict of every two tasks, mean over layers. Most: {pair}, "
        f"{_percent(float(shares[worst]))} of steps.",
        class_="heat",
    )


def _names(names: Sequence[str], row: float, head: float, marked: Collection[str]) -> Markup:
    """Write names on the left: all, or every second or third where rows are low."""
    step = _every(row)
    return tag(
        "g",
        *(
            tag("text", _cut(name, 27), tag("title", one_line(name)), x=LABEL - 6,
                y=head + row * (place + 0.5) + 3.5,
                class_="layer end" + (" marked" if name in marked else ""))
            for place, name in enumerate(names)
            if place % step == 0
        ),
    )  # fmt: skip


def _tops(names: Sequence[str], column: float, head: float, left: float) -> Markup:
    """Write names above, slanted."""
    step = math.ceil(11 / column)
    parts = []
    for place, name in enumerate(names):
        if place % step == 0:
            x = left + column * (place + 0.5) + 3
            turn = f"rotate(-50 {x:.1f} {head - 6:.1f})"
            parts.append(
                tag("text", _shorten(name), tag("title", one_line(name)), x=x, y=head - 6,
                    transform=turn, class_="layer")
            )  # fmt: skip
    return tag("g", *parts)


def _row(n: int) -> float:
    return float(min(16, max(5, 1100 // max(n, 1))))


def _column(n: int) -> float:
    return float(min(28, max(9, 520 // n)))


def _head(names: Sequence[str]) -> float:
    return 16 + 4.6 * max(min(TOP_LETTERS, len(name)) for name in names)


def _every(row: float) -> int:
    return math.ceil(11 / row)


def _bar(share: float, top: float) -> float:
    return 0.0 if math.isnan(share) else round(48 * share / top, 1)


def _percent(share: float) -> str:
    return "none" if math.isnan(share) else f"{100 * share:.0f} %"


def _shorten(name: str) -> str:
    """Keep the beginning of a task's long name."""
    name = one_line(name)
    return name if len(name) <= TOP_LETTERS else f"{name[: TOP_LETTERS - 1]}…"


def _cut(name: str, most: int) -> str:
    """Keep the end of a long name, which tells layers apart."""
    name = one_line(name)
    return name if len(name) <= most else f"…{name[-most + 1 :]}"
