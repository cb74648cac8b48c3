"""Tables for the terminal."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, get_args

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recon_search.conflict.gate import Gate, measure_gate
from recon_search.conflict.reliability import Reliability, measure_reliability
from recon_search.conflict.rules import Reading, rank
from recon_search.conflict.scores import ConflictScores
from recon_search.runs.comparison import Comparison, Row, Values
from recon_search.runs.paired import Difference
from recon_search.tasks.scoring import Average, delta_m, mean_and_deviation, measured
from recon_search.tasks.task import Metrics

MANY_PAIRS = 6
"""Pairs of tasks above which single ones say nothing any more, and have no column."""

MANY_COLUMNS = 6
"""Metrics over all tasks above which a comparison has no column for each (see `narrow`)."""

UNLIMITED = 10_000
"""Columns of a terminal that breaks no line."""

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
        "gate": _gate_summary(measure_gate(scores, rule, reading, k)),
        "layers": ranking_rows(scores, rule, reading),
    }


def ranking_table(
    scores: ConflictScores, rule: str, reading: Reading, k: int, width: int = UNLIMITED
) -> Table:
    """The ranking with a bar for each layer's value, and how far its top k can be trusted.

    A few pairs of tasks have columns, with their own steps where these differ; pairs that never had
    a loss in the same step are named below. Where the terminal is too narrow, bars are left out
    first, then pairs, then types and parameters.

    Args:
        scores: of a probe.
        rule: name of a rule.
        reading: how the scores are read.
        k: how many layers would be split.
        width: columns of the terminal.
    """
    rows = ranking_rows(scores, rule, reading)
    few = rows and len(scores.pairs) <= MANY_PAIRS
    pairs = list(rows[0]["conflicts"]) if few else []
    table = Table()
    for has_bars, own, has_facts in (
        (True, pairs, True),
        (False, pairs, True),
        (False, [], True),
        (False, [], False),
    ):
        table = _ranking(
            scores, rule, reading, k, rows, own, has_bars=has_bars, has_facts=has_facts
        )
        if full_width(table) <= width:
            break
    return table


def _ranking(
    scores: ConflictScores,
    rule: str,
    reading: Reading,
    k: int,
    rows: Sequence[Mapping[str, Any]],
    pairs: Sequence[str],
    *,
    has_bars: bool,
    has_facts: bool,
) -> Table:
    reliability = measure_reliability(scores, rule, reading, k)
    trust = describe_reliability(reliability, k, scores.n_probes, len(scores.layers))
    trust += "\n" + describe_gate(measure_gate(scores, rule, reading, k))
    table = Table(
        title=f"{scores.steps} measured steps, rule {rule}, S = {reading.threshold}",
        title_justify="left",
        caption=escape("\n".join([trust, *_describe_unmeasured(scores)])),
        caption_justify="left",
    )
    table.add_column("#", justify="right", style="dim")
    table.add_column("layer", no_wrap=True)
    if has_facts:
        table.add_column("type", style="dim")
        table.add_column("parameters", justify="right")
    steps = scores.pair_steps.tolist()
    for pair, n in zip(pairs, steps[: len(pairs)], strict=True):
        own = "" if n == scores.steps else f"\nof {n}"
        table.add_column(escape(f"conflicts\n{pair}{own}"), justify="right")
    table.add_column(rule, justify="right")
    if has_bars:
        table.add_column("")
    top = max((abs(row["value"]) for row in rows), default=0.0) or 1.0
    for place, row in enumerate(rows, start=1):
        table.add_row(
            str(place),
            escape(row["layer"]),
            *(
                [
                    escape(row["type"] or ""),
                    "" if row["n_parameters"] is None else f"{row['n_parameters']:,}",
                ]
                if has_facts
                else []
            ),
            *(
                "" if row["conflicts"][pair] is None else str(row["conflicts"][pair])
                for pair in pairs
            ),
            f"{row['value']:.4g}",
            *(["█" * round(20 * max(0.0, row["value"]) / top)] if has_bars else []),
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


def describe_gate(found: Gate) -> str:
    """Say in words whether anything in the probe speaks for splitting at all."""
    if math.isnan(found.share):
        return "The gate says nothing: the tasks' gradients meet in none of these layers."
    low, high = found.interval
    words = {
        "do not split": "the tasks help each other there: do not split",
        "split": "the tasks hinder each other there: a split may help",
        "cannot tell": "whether a split may help cannot be told",
    }
    return (
        f"Gate: {found.share:.0%} of the inner products of the tasks' gradients in the top "
        f"{found.k} are conflict ({low:.0%} to {high:.0%}; 50% by chance), so "
        f"{words[found.advice]}. Not yet validated: see EVIDENCE."
    )


def _gate_summary(found: Gate) -> dict[str, Any]:
    numbers = {"share": found.share, "low": found.interval[0], "high": found.interval[1]}
    known = {name: None if math.isnan(value) else value for name, value in numbers.items()}
    return {"k": found.k, **known, "advice": found.advice, "validated": False}


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
    if difference is None or difference.adjusted is None:
        return ""
    return f"{difference.adjusted:.3f}" if difference.adjusted >= 0.001 else "<0.001"


def _show_height(above: Difference) -> str:
    """A mean, with a star where its confidence interval holds no 0."""
    interval = above.interval
    is_sure = interval is not None and (interval[0] > 0 or interval[1] < 0)
    return f"{above.mean:+.2f}{'*' if is_sure else ''}"
