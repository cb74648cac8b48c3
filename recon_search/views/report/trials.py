"""Plots of a search on the page, made of its summary."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from recon_search.views.report.svg import (
    WIDTH,
    Scale,
    bottom_axis,
    drawing,
    left_axis,
    mark,
    polyline,
    reach,
    series,
    stairs,
    tag,
)
from recon_search.views.trial_plots import WORDS, pareto

BOTTOM = 226

COSTS = {"flops": "FLOPs of one image", "n_parameters": "parameters"}

Trial = Mapping[str, Any]


def search_plots(summary: Mapping[str, Any], cost: str) -> dict[str, Any]:
    """Draw what trials are judged by over what was drawn, against a cost, and in their order.

    Args:
        summary: see `views.trials.summarise`.
        cost: `flops` or `n_parameters`.

    Returns:
        `plots`, with a sentence each, and `rules`, the marks of rules in the first ones.
    """
    what = WORDS[summary["measure"]]
    trials = [{**trial, "value": trial[summary["measure"]]} for trial in summary["trials"]]
    done = [
        trial for trial in trials if trial["state"] == "complete" and math.isfinite(trial["value"])
    ]
    rules = list(dict.fromkeys(_rule(trial) for trial in done))
    plots = []
    for key, label, said in (
        ("split.k", "k, layers asked for", f"{what} over the number of layers that are split"),
        ("split.threshold", "threshold S", f"{what} over S, of rules that count conflicts"),
    ):
        drawn = [trial for trial in done if key in trial["params"]]
        if drawn:
            points = [(float(trial["params"][key]), trial) for trial in drawn]
            plots.append((said, _scatter(points, label, said, rules, what)))
    known = [(trial[cost] / 1e6, trial) for trial in done if trial[cost] is not None]
    if known:
        said = f"{what} against {COSTS[cost]}; the line joins trials that none beats in both"
        label = f"{COSTS[cost]}, millions"
        plots.append((said, _scatter(known, label, said, rules, what, front=True)))
    if done:
        plots.append(_history(trials, what))
    if summary["importances"]:
        plots.append(_bars(summary["importances"], what))
    swatches = [
        (rule, tag("svg", mark("", 8, 8, series(place)), viewBox="0 0 16 16", class_="swatch",
                   aria_hidden="true"))
        for place, rule in enumerate(rules)
    ]  # fmt: skip
    return {"plots": plots, "rules": swatches if len(rules) > 1 else []}


def _scatter(
    points: Sequence[tuple[float, Trial]],
    label: str,
    said: str,
    rules: Sequence[str],
    what: str,
    *,
    front: bool = False,
) -> Markup:
    """Draw a point a trial, in the colour of its rule."""
    values = [trial["value"] for _, trial in points]
    x = Scale(*reach([own for own, _ in points]), 46, WIDTH - 16)
    y = Scale(*reach(values), BOTTOM, 24)
    parts: list[object] = [
        left_axis(y, (46, WIDTH - 16), f"validation {what}, %"),
        bottom_axis(x, (24, BOTTOM), label),
    ]
    if front:
        best = pareto([(own, trial["value"]) for own, trial in points])
        parts.append(stairs(best, x, y, "front"))
    for own, trial in points:
        title = tag("title", f"trial {trial['trial']}: {trial['split']}, {trial['value']:+.2f} %")
        colour = series(rules.index(_rule(trial)))
        kind = "split" if trial["is_best"] else ""
        parts.append(tag("g", mark(kind, x(own), y(trial["value"]), colour, 4), title))
    best_one = max(points, key=lambda point: point[1]["value"])
    words = f"{said}. Best: {best_one[1]['value']:+.2f} % at {best_one[0]:.4g}, {label}."
    return drawing(WIDTH, BOTTOM + 40, *parts, label=words)


def _history(trials: Sequence[Trial], what: str) -> tuple[str, Markup]:
    """Draw every trial as it came, and the best so far."""
    shown = [t for t in trials if t["value"] is not None and math.isfinite(t["value"])]
    x = Scale(-0.5, max(trial["trial"] for trial in shown) + 0.5, 46, WIDTH - 16)
    y = Scale(*reach(trial["value"] for trial in shown), BOTTOM, 24)
    parts: list[object] = [
        left_axis(y, (46, WIDTH - 16), f"validation {what}, %"),
        bottom_axis(x, (24, BOTTOM), "trial"),
    ]
    best, corners = -math.inf, list[tuple[float, float]]()
    for trial in shown:
        at = x(trial["trial"]), y(trial["value"])
        title = tag("title", f"trial {trial['trial']}: {trial['state']}, {trial['value']:+.2f} %")
        if trial["state"] == "complete":
            if corners:
                corners.append((at[0], y(best)))
            best = max(best, trial["value"])
            corners.append((at[0], y(best)))
            point = mark("", *at, "s2", 4)
        elif trial["state"] == "pruned":
            point = tag("path", d=f"M{at[0] - 4} {at[1] - 4}l8 8m0 -8l-8 8", class_="cross")
        else:
            point = mark("", *at, "s0", 2.5)
        parts.append(tag("g", point, title))
    corners.append((WIDTH - 16, y(best)))
    parts.insert(2, polyline(corners, "line s1"))
    said = "As the search went on: line, the best so far; crosses, pruned; small dots, repeated"
    label = f"Validation {what} of {len(shown)} trials in their order. The best: {best:+.2f} %."
    return said, drawing(WIDTH, BOTTOM + 40, *parts, label=label)


def _bars(shares: Mapping[str, float], what: str) -> tuple[str, Markup]:
    """Draw how much of the variance each key explains."""
    left, row = 150, 24
    bottom = 10 + row * len(shares)
    x = Scale(0.0, 100.0, left, WIDTH - 16)
    parts: list[object] = [bottom_axis(x, (4, bottom), f"% of the variance of {what}")]
    for place, (name, share) in enumerate(shares.items()):
        y = 8 + row * place
        parts.append(tag("text", name[-26:], x=left - 8, y=y + 14, class_="layer end"))
        parts.append(
            tag("rect", x=left, y=y + 3, width=x(100 * share) - left, height=row - 8,
                class_="column")
        )  # fmt: skip
    said = "What mattered, by fANOVA, of keys that were drawn in every trial"
    words = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return said, drawing(WIDTH, bottom + 40, *parts, label=f"{said}: {words}.")


def _rule(trial: Trial) -> str:
    return str(trial["params"].get("split.rule", "splits"))
