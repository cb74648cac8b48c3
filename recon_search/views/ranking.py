"""A ranking of layers: as a table, as plain values, and in words, how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from recon_search.conflict.gate import Gate, measure_gate
from recon_search.conflict.reliability import Reliability, measure_reliability
from recon_search.conflict.rules import Reading, rank
from recon_search.conflict.scores import ConflictScores
from recon_search.views.markup import escape
from recon_search.views.tables import UNLIMITED, full_width

MANY_PAIRS = 6
"""Pairs of tasks above which single ones say nothing any more, and have no column."""

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
        title=f"{scores.steps} measured steps, rule {rule}, S = {reading.threshold:g}",
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
    tau = "not known" if math.isnan(found.tau) else f"{found.tau:.2f}"
    text = (
        f"Of the top {k}, two halves of these steps share {found.overlap:.0%} (by chance "
        f"{found.chance:.0%}), and another probe of {n_probes} seed{'s' * (n_probes > 1)} would "
        f"share {most}{found.stability:.0%}; Kendall's tau between the halves {tau}."
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
        f"{words[found.advice]}. Do not rely on the gate: it has been wrong (recipes/EVIDENCE.md)."
    )


def _gate_summary(found: Gate) -> dict[str, Any]:
    numbers = {"share": found.share, "low": found.interval[0], "high": found.interval[1]}
    known = {name: None if math.isnan(value) else value for name, value in numbers.items()}
    return {"k": found.k, **known, "advice": found.advice, "validated": False}
