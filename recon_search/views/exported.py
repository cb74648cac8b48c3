"""Which network of a comparison is handed over, and why that one."""

from __future__ import annotations

import math
import shlex
import statistics
from pathlib import Path

from recon_search.runs.comparison import Comparison, Row


def describe_export(comparison: Comparison, out: Path) -> list[str]:
    """Say which network is in `model`, by what it was chosen, and how to have one ranked above.

    Args:
        comparison: whose best network was handed over.
        out: the run folder.
    """
    best = comparison.best
    lines = [
        f'Exported: "{best.name}", seed {best.seed}, the split network with the highest delta_m on '
        f"validation data ({best.validation_delta_m:+.2f} %)."
    ]
    rows = {row.name: _mean(row) for row in comparison.rows if row.role != "separate"}
    first, own = max(rows, key=rows.__getitem__), rows.get(best.name, math.nan)
    row = next(row for row in comparison.rows if row.name == first)
    if row.role == "split" or not rows[first] > own:
        return lines
    doubt = "" if row.outcome == "better" else ", which chance alone may do"
    text = (
        f'On test data "{first}" ranks above it ({rows[first]:+.2f} and {own:+.2f} %, means over '
        f"seeds{doubt}). Test data chooses nothing, and a run hands over what it was asked to "
        "judge: a split network."
    )
    if folders := comparison.trainings.get(first):
        path = shlex.quote(str(out / folders[0] / "model"))
        text += f" To have the other: recon-search export {path} --format safetensors"
    return [*lines, text]


def _mean(row: Row) -> float:
    mean = statistics.fmean(row.delta_m)
    return -math.inf if math.isnan(mean) else mean
