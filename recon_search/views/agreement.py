"""Two rankings side by side, as a table and as plain values."""

from __future__ import annotations

import math
from typing import Any

from rich.table import Table

from recon_search.conflict.agreement import Agreement
from recon_search.views.markup import escape

SHOWN = 5
"""Layers in common that a row names."""


def agreement_table(found: Agreement, names: tuple[str, str]) -> Table:
    """What the tops of two rankings share, a row a size, with what each shares with itself."""
    first, second = map(escape, names)
    title = (
        f"{first} and {second}: {found.n_layers} layers, Kendall's tau {_number(found.tau)}; "
        f"between halves of each {_number(found.tau_halves[0])} and {_number(found.tau_halves[1])}"
    )
    table = Table(title=title, title_justify="left")
    headings = ("top", "both", "share", "by chance", "first with\nitself", "second with\nitself")
    for heading in headings:
        table.add_column(heading, justify="right")
    table.add_column("layers in both")
    for top in found.tops:
        more = f" and {len(top.shared) - SHOWN} more" if len(top.shared) > SHOWN else ""
        table.add_row(
            str(top.k),
            str(len(top.shared)),
            f"{top.share:.0%}",
            f"{top.chance:.0%}",
            *map(_share, top.stability),
            escape(", ".join(top.shared[:SHOWN]) + more),
        )
    return table


def describe_agreement(found: Agreement) -> str:
    """Say what the shares are to be held against."""
    if all(value is None for value in found.tau_halves):
        return "Tables of counts do not say how far they can be trusted."
    return (
        '"With itself" is what another probe of that kind would share with it: rankings that '
        "agree as far as that cannot be told apart."
    )


def agreement_summary(found: Agreement, names: tuple[str, str], rule: str) -> dict[str, Any]:
    """The same as plain values; what is not a number is None."""
    return {
        "of": list(names),
        "rule": rule,
        "layers": found.n_layers,
        "tau": _known(found.tau),
        "tau_halves": [_known(value) for value in found.tau_halves],
        "tops": [
            {
                "k": top.k,
                "shared": list(top.shared),
                "share": top.share,
                "chance": top.chance,
                "stability": [_known(value) for value in top.stability],
            }
            for top in found.tops
        ],
    }


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _number(value: float | None) -> str:
    return "not known" if _known(value) is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "" if _known(value) is None else f"{value:.0%}"
