"""What stands beside a result's rows: what a paper reports of them, timings, and sittings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recon_search.runs.comparison import Row

PUBLISHED = Path(__file__).parent / "published"


def published_of(result: dict[str, Any]) -> dict[str, Any]:
    """By name of a row what a paper reports, (metrics ..., delta_m); none where none is named."""
    if "published" not in result:
        return {}
    found: dict[str, Any] = json.loads((PUBLISHED / f"{result['published']}.json").read_text())
    return found["rows"]


def lacking(result: dict[str, Any], rows: Sequence[Row]) -> str:
    """Say where published numbers are from, and which have no row here."""
    if "published" not in result:
        return ""
    found = json.loads((PUBLISHED / f"{result['published']}.json").read_text())
    names = {row.name for row in rows}
    others = [f"{name} {slashed(of)}" for name, of in found["rows"].items() if name not in names]
    text = f"Published: {found['source']}: {found['columns']}."
    return f"{text} Without a row here: {'; '.join(others)}." if others else text


def slashed(numbers: Sequence[float | None]) -> str:
    return " / ".join("" if number is None else f"{number:.2f}" for number in numbers)


def timed(result: dict[str, Any]) -> list[str]:
    """Tables of what was timed beside the trainings."""
    tables = []
    for name, found in result.get("timed", {}).items():
        if name == "plan":
            head = ["step, alone on the device", "ms", "images a second", "gradients kept, MiB"]
            lines = [
                [
                    f"{step['network']}, {step['method']}{', measured' * step['measured']}",
                    f"{1000 * step['seconds']['middle']:.1f}",
                    f"{result['batch_size'] / step['seconds']['middle']:,.0f}",
                    f"{step['gradients'] / 2**20:.0f}",
                ]
                for step in found["steps"]
            ]
        else:
            head = [f"`bench_step`, {found['workload']}", "ms", "x joint", "quartiles", "peak MiB"]
            lines = [
                [
                    row["kind"],
                    f"{row['milliseconds']:.1f}",
                    f"{row['median']:.2f}",
                    f"{row['low']:.2f} to {row['high']:.2f}",
                    f"{row['peak_mib']:.0f}",
                ]
                for row in found["rows"]
            ]
        cells = [head, ["---"] * len(head), *lines]
        tables.append("\n".join(f"| {' | '.join(line)} |" for line in cells))
    return tables


def sittings(result: dict[str, Any]) -> str:
    """Say in how many sittings a result came about, and what is left."""
    if "sittings" not in result:
        return ""
    found = result["sittings"]
    cards = dict.fromkeys(
        " with driver ".join(filter(None, (each["card"], each["driver"]))) for each in found
    )
    failed = {name: why for each in found for name, why in each["failed"].items()}
    said = [
        f"From the probe to this table: {result['seconds'] / 60:,.0f} minutes in {len(found)} "
        f"sittings on {', '.join(cards)}; {result['left']} trainings are left.",
        *(f"{name} failed: {why}" for name, why in failed.items()),
    ]
    return f"{' '.join(said)}\n\n"
