"""Tables for the terminal."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.table import Table

from recon_search.conflict.reliability import Reliability, measure_reliability
from recon_search.conflict.rules import Reading, rank
from recon_search.conflict.scores import ConflictScores
from recon_search.runs.comparison import Comparison, Row
from recon_search.tasks.scoring import delta_m, mean_and_deviation
from recon_search.tasks.task import Metrics

MANY_PAIRS = 6
"""Pairs of tasks above which single ones say nothing any more, and have no column."""

MANY_COLUMNS = 6
"""Metrics over all tasks above which a comparison shows its worst and its best task alone."""

STABLE = 0.7
"""Stability below which a warning is printed with a ranking."""


def ranking_rows(scores: ConflictScores, rule: str, reading: Reading) -> list[dict[str, Any]]:
    """The ranking as plain rows: `layer`, `type`, `n_parameters`, `value`, `conflicts` by pair.

    Type and parameters are None where the scores do not know them, conflicts of pairs of tasks that
    never had a loss in the same step.
    """
    infos = {info["name"]: info for info in scores.metadata.get("layer_infos", [])}
    unmeasured = [f"{first}-{second}" for first, second in scores.unmeasured]
    pairs = [f"{first}-{second}" for first, second in scores.pairs]
    counts: dict[str, list[Any]] = dict.fromkeys(scores.layers, [None] * len(pairs))
    if scores.steps:
        found = scores.counts(reading.threshold).tolist()
        counts = dict(zip(scores.layers, found, strict=True))
    return [
        {
            "layer": layer,
            "type": infos[layer]["type"] if layer in infos else None,
            "n_parameters": infos[layer]["n_parameters"] if layer in infos else None,
            "value": value,
            "conflicts": dict(zip(pairs, counts[layer], strict=True)) | dict.fromkeys(unmeasured),
        }
        for layer, value in rank(scores, rule, reading)
    ]


def ranking_summary(scores: ConflictScores, rule: str, reading: Reading, k: int) -> dict[str, Any]:
    """The ranking as plain values: how it was read, how far its top `k` can be trusted, its rows.

    `steps` are those in which each pair of tasks was measured. What is not a number is None.
    """
    steps = scores.pair_steps.tolist()
    found = asdict(measure_reliability(scores, rule, reading, k))
    trust = {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in found.items()
    }
    return {
        "rule": rule,
        "threshold": reading.threshold,
        "window": reading.window,
        "probes": scores.n_probes,
        "steps": {f"{a}-{b}": n for (a, b), n in zip(scores.pairs, steps, strict=True)},
        "reliability": {"k": min(k, len(scores.layers)), **trust},
        "layers": ranking_rows(scores, rule, reading),
    }


def ranking_table(scores: ConflictScores, rule: str, reading: Reading, k: int) -> Table:
    """The ranking with a bar for each layer's value, and how far its top k can be trusted.

    A few pairs of tasks have columns, with their own steps where these differ; pairs that never had
    a loss in the same step are named below.
    """
    rows = ranking_rows(scores, rule, reading)
    reliability = measure_reliability(scores, rule, reading, k)
    trust = describe_reliability(reliability, k, scores.n_probes, len(scores.layers))
    table = Table(
        title=f"{scores.steps} measured steps, rule {rule}, S = {reading.threshold}",
        title_justify="left",
        caption=escape("\n".join([trust, *_describe_unmeasured(scores)])),
        caption_justify="left",
    )
    table.add_column("#", justify="right", style="dim")
    table.add_column("layer", no_wrap=True)
    table.add_column("type", style="dim")
    table.add_column("parameters", justify="right")
    pairs = list(rows[0]["conflicts"]) if rows and len(scores.pairs) <= MANY_PAIRS else []
    steps = scores.pair_steps.tolist()
    for pair, n in zip(pairs, steps[: len(pairs)], strict=True):
        own = "" if n == scores.steps else f"\nof {n}"
        table.add_column(escape(f"conflicts\n{pair}{own}"), justify="right")
    table.add_column(rule, justify="right")
    table.add_column("")
    top = max((abs(row["value"]) for row in rows), default=0.0) or 1.0
    for place, row in enumerate(rows, start=1):
        table.add_row(
            str(place),
            escape(row["layer"]),
            escape(row["type"] or ""),
            "" if row["n_parameters"] is None else f"{row['n_parameters']:,}",
            *(
                "" if row["conflicts"][pair] is None else str(row["conflicts"][pair])
                for pair in pairs
            ),
            f"{row['value']:.4g}",
            "█" * round(20 * max(0.0, row["value"]) / top),
        )
    return table


def _describe_unmeasured(scores: ConflictScores) -> list[str]:
    """Name the pairs that were not measured, if there are any."""
    pairs = [f"{first}-{second}" for first, second in scores.unmeasured]
    if not pairs:
        return []
    more = f" and {len(pairs) - MANY_PAIRS} more" if len(pairs) > MANY_PAIRS else ""
    return [
        f"Not measured, as the two never had a loss in the same step: "
        f"{', '.join(pairs[:MANY_PAIRS])}{more}."
    ]


def describe_reliability(found: Reliability, k: int, n_probes: int, n_layers: int) -> str:
    """Say in words how far the top `k` of a ranking can be trusted."""
    k = min(k, n_layers)
    if math.isnan(found.stability):
        return f"All {n_layers} layers have the same value: nothing sets the top {k} apart."
    most = "at most " if n_probes == 1 else ""  # one seed does not show how far seeds differ
    text = (
        f"Of the top {k}, two halves of these steps share {found.overlap:.0%} (by chance "
        f"{found.chance:.0%}), and another probe of {n_probes} seed{'s' * (n_probes > 1)} would "
        f"share {most}{found.stability:.0%}; Kendall's tau between the halves {found.tau:.2f}."
    )
    if found.stability < STABLE:
        text += f" Below {STABLE:.0%} much of the order is noise: probe longer or over more seeds."
    return text


def comparison_table(comparison: Comparison) -> Table:
    """The comparison: metrics, delta_m with spread, cost, conflicts, and the paired difference."""
    n_seeds = len(comparison.seeds)
    over = f"mean ± standard deviation over {n_seeds} seeds" if n_seeds > 1 else "one seed"
    table = Table(title=f"Test data, {over}", title_justify="left")
    table.add_column("network", no_wrap=True)
    columns = [(task, name) for task, own in comparison.directions.items() for name in own]
    has_room = len(columns) <= MANY_COLUMNS
    for task, name in columns if has_room else ():
        heading = f"{task}\n{name} {comparison.unit(task, name)}".rstrip()
        table.add_column(escape(heading), justify="right", overflow="fold")
    if not has_room:
        table.add_column("worst task\n% to single", justify="right", overflow="fold")
        table.add_column("best task\n% to single", justify="right", overflow="fold")
    table.add_column("delta_m\n%", justify="right", overflow="fold")
    table.add_column("minus split\n(paired)", justify="right", overflow="fold")
    table.add_column("p", justify="right", overflow="fold")
    table.add_column("para-\nmeters", justify="right", overflow="fold")
    table.add_column("FLOPs", justify="right", overflow="fold")
    table.add_column(f"cos < {comparison.threshold}\n% of pairs", justify="right", overflow="fold")
    base = comparison.rows[0]
    singles = ["", ""]
    if has_room:
        singles = [_spread(comparison.single[task][name]) for task, name in columns]
    ratio = comparison.single_parameters / base.n_parameters
    table.add_row("single-task models", *singles, "0", "", "", f"{ratio:.2f}x", "", "", style="dim")
    for row in comparison.rows:
        difference = row.minus_split
        table.add_row(
            escape(row.name),
            *(
                [_spread(row.metrics[task][name]) for task, name in columns]
                if has_room
                else _extremes(row, comparison)
            ),
            _spread(row.delta_m, sign=True),
            "" if difference is None else _show(difference, n_seeds, sign=True),
            "" if row.p_value is None else f"{row.p_value:.3f}",
            f"{row.n_parameters / base.n_parameters:.2f}x",
            f"{row.flops / base.flops:.2f}x",
            "" if row.conflicts is None else f"{100 * row.conflicts:.1f}",
            style="bold" if row.role == "split" else None,
        )
    return table


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


def _extremes(row: Row, comparison: Comparison) -> list[str]:
    """The tasks that a network serves worst and best, by delta_m of each alone, mean over seeds."""
    means = {
        task: delta_m(_means(row.metrics, task), _means(comparison.single, task), {task: own})
        for task, own in comparison.directions.items()
    }
    known = {task: mean for task, mean in means.items() if not math.isnan(mean)} or means
    ends = (min(known, key=known.__getitem__), max(known, key=known.__getitem__))
    return [f"{escape(task)} {means[task]:+.2f}" for task in ends]


def _means(values: Mapping[str, Mapping[str, list[float]]], task: str) -> Metrics:
    return {task: {name: statistics.fmean(seeds) for name, seeds in values[task].items()}}


def _spread(values: list[float], *, sign: bool = False) -> str:
    return _show(mean_and_deviation(values), len(values), sign=sign)


def _show(spread: tuple[float, float], n: int, *, sign: bool) -> str:
    """A mean and its deviation; one value has none."""
    mean = f"{spread[0]:{'+' if sign else ''}.2f}"
    return mean if n == 1 else f"{mean} ± {spread[1]:.2f}"
