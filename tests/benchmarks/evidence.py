"""Results of record: from a finished run to a file, and from files to the documents' tables.

    python -m tests.benchmarks.evidence record runs/quickstart --name quickstart --command "..."
    python -m tests.benchmarks.evidence tables [--check]

`record` writes `recipes/results/NAME.json`: the rows of the run's comparison, and with which
commit, machine, versions and command they were made. `tables` writes what stands in the documents
between `<!-- result: NAME -->` and `<!-- end -->`. No number between these is typed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recon_search.records import fit
from recon_search.runs.comparison import Comparison, Row
from recon_search.runs.paired import Difference
from recon_search.views.tables import show_p
from tests.benchmarks.search_table import tables_of

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "recipes" / "results"
DOCUMENTS = ("README.md", "recipes/README.md", "recipes/EVIDENCE.md")
BLOCK = re.compile(r"(<!-- result: ([\w-]+) -->\n).*?(<!-- end -->)", flags=re.S)


def main() -> None:
    """Record a run, or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="action", required=True)
    record = commands.add_parser("record")
    record.add_argument("run", type=Path)
    record.add_argument("--name", required=True)
    record.add_argument("--command", required=True)
    tables = commands.add_parser("tables")
    tables.add_argument("--check", action="store_true", help="Write nothing; fail if they differ.")
    options = parser.parse_args()
    if options.action == "record":
        RESULTS.mkdir(exist_ok=True)
        found = record_of(options.run, options.command)
        path = RESULTS / f"{options.name}.json"
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return
    stale = [name for name in DOCUMENTS if (ROOT / name).is_file() and not _is_fresh(name)]
    if options.check and stale:
        sys.exit(f"Tables differ from recipes/results in {', '.join(stale)}.")
    for name in stale:
        (ROOT / name).write_text(filled((ROOT / name).read_text("utf-8")), encoding="utf-8")


def record_of(run: Path, command: str) -> dict[str, Any]:
    """What is kept of a run: its comparison, and how it came about."""
    comparison = Comparison.load(run / "comparison.json")
    results = [json.loads(path.read_text()) for path in run.glob("trainings/*/result.json")]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {
        "command": command,
        "commit": commit.stdout.strip(),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "timm")},
        "trainings": len(results),
        "training_seconds": round(sum(result["seconds"] for result in results)),
        "seeds": comparison.seeds,
        "directions": comparison.directions,
        "verdict": comparison.verdict,
        "warning": comparison.warning,
        "rows": [asdict(row) for row in comparison.rows],
    }


def filled(text: str) -> str:
    """Return a document with its tables made anew."""

    def fill(found: re.Match[str]) -> str:
        path = RESULTS / f"{found[2]}.json"
        result = json.loads(path.read_text("utf-8"))
        table = tables_of(result) if result.get("kind") == "search" else table_of(result)
        return f"{found[1]}{table}{found[3]}"

    return BLOCK.sub(fill, text)


def table_of(result: dict[str, Any]) -> str:
    """A result as a table, with what was said of it and how to repeat it."""
    rows = rows_of(result)
    columns = [(task, name) for task, own in result["directions"].items() for name in own]
    columns = columns if len(columns) <= 4 else []
    head = [
        "network",
        *(f"{task} {name}" for task, name in columns),
        "delta_m %",
        "split's advantage",
        "p",
        "loss %",
        "parameters",
        "FLOPs",
        *(f"above line, {cost}" for cost in rows[0].prices),
    ]
    lines = [head, ["---"] * len(head), *(_cells(row, columns) for row in rows)]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    said = " ".join(filter(None, (result["verdict"], result["warning"])))
    return (
        f"{text}\n\n{said}\n\n`{result['command']}` (seeds {_range(result['seeds'])}; "
        f"{result['trainings']} trainings; commit "
        f"{result['commit']}, {versions}, {result['machine']})\n"
    )


def rows_of(result: dict[str, Any]) -> list[Row]:
    """The rows of a result."""
    return [fit(Row, row, "the result", "A row", "Record it again.") for row in result["rows"]]


def _cells(row: Row, columns: list[tuple[str, str]]) -> list[str]:
    name = f"**{row.name}**" if row.role == "split" else row.name
    difference = row.minus_split
    advantage = "" if difference is None else _interval(difference, sign=-1)
    heights = [
        "" if price.above is None or price.above.interval is None else _interval(price.above)
        for price in row.prices.values()
    ]
    is_apart = row.role == "separate"
    return [
        name,
        *(_spread(row.metrics[task][metric]) for task, metric in columns),
        "0" if is_apart else _spread(row.delta_m, "+"),
        advantage,
        show_p(difference),
        "0" if is_apart else _spread(row.loss, "+"),
        f"{row.prices['parameters'].ratio:.2f}x",
        f"{row.prices['FLOPs'].ratio:.2f}x",
        *heights,
    ]


def _spread(values: list[float], sign: str = "") -> str:
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{sign}.2f}{deviation}"


def _interval(difference: Difference, sign: int = 1) -> str:
    mean = f"{sign * difference.mean:+.2f}"
    if difference.interval is None:
        return mean
    low, high = sorted(sign * end for end in difference.interval)
    return f"{mean} [{low:+.2f}, {high:+.2f}]"


def _range(seeds: list[int]) -> str:
    return f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0])


def _is_fresh(name: str) -> bool:
    text = (ROOT / name).read_text("utf-8")
    return filled(text) == text


def processor() -> str:
    """The processor's name, where the system tells."""
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
