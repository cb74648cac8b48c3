"""What `recon-search ablate` has found, as tables: rules, and the layers worth most."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recon_search.runs.ablation import Ablation
from recon_search.tasks.scoring import mean_and_deviation
from recon_search.views.ablation import describe_ablation
from recon_search.views.tables import write_p
from tests.benchmarks.summaries import interval_of

FILE = "ablation.json"

SHOWN = 6
"""Layers at either end that are shown."""


def ablation_of(run: Path) -> dict[str, Any]:
    """What is kept of an ablation beside how it came about."""
    found = Ablation.load(run / FILE)
    mean, deviation = mean_and_deviation(found.joint)
    order = sorted(found.layers, key=lambda own: -own.benefit.mean)
    ranks = {
        own.layer: [str(rule.ranks[place]) for rule in found.rules]
        for place, own in enumerate(found.layers)
    }
    return {
        "kind": "ablation",
        "seeds": found.seeds,
        "verdict": describe_ablation(found),
        "unsplit": f"{mean:+.2f} ± {deviation:.2f}",
        "n_layers": found.n_layers,
        "rules": [[own.rule, own.spearman, own.p_value] for own in found.rules],
        "layers": [
            [
                own.layer,
                interval_of(own.benefit),
                own.benefit.adjusted,
                own.flops,
                own.n_parameters,
                ranks[own.layer],
            ]
            for own in order
        ],
    }


def tables_of(result: Mapping[str, Any]) -> str:
    """The tables of a result, and how to repeat it."""
    names = [rule for rule, *_ in result["rules"]]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    rules = [["rule", "Spearman with the benefits", "p, by itself"]]
    rules += [[f"`{rule}`", _number(rho, "+.2f"), write_p(p)] for rule, rho, p in result["rules"]]
    layers = [["layer", "benefit", "p", "FLOPs", "parameters", *(f"`{name}`" for name in names)]]
    own = [
        [f"`{layer}`", benefit, write_p(p), f"{flops:.2f}x", f"{size:.2f}x", *places]
        for layer, benefit, p, flops, size, places in result["layers"]
    ]
    between = [["..."] + [""] * (len(layers[0]) - 1)] if len(own) > 2 * SHOWN else []
    layers += own[:SHOWN] + between + own[max(SHOWN, len(own) - SHOWN) :]
    return (
        f"{_table(rules)}\n\n{result['verdict']}\n\nThe layers worth most and least of "
        f"{len(result['layers'])}, split alone, and their places by each rule among "
        f"{result['n_layers']} (unsplit: delta_m {result['unsplit']}):\n\n{_table(layers)}\n\n"
        f"`{result['command']}` ({len(result['seeds'])} seeds; {result['trainings']} trainings; "
        f"commit {result['commit']}, {versions}, {result['machine']})\n"
    )


def _table(rows: list[list[str]]) -> str:
    head, *others = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *others])


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
