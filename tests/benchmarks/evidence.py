"""Results of record: from a finished run to a file, and from files to the documents' tables.

    python -m tests.benchmarks.evidence record runs/quickstart --name quickstart --command "..."
    python -m tests.benchmarks.evidence tables [--check]

`record` writes `recipes/results/NAME.json`: the rows of the run's comparison, what its probe says
of itself, and with which commit, machine, versions and command they were made. `tables` writes what
stands in the documents between `<!-- result: NAME -->`, or that of a summary of several results as
`<!-- gate: NAME, NAME -->`, and `<!-- end -->`. No number between these is typed. A result with
`published` names a file beside this one: what a paper reports of the same rows.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recon_search.conflict.gate import measure_gate
from recon_search.conflict.reliability import measure_reliability
from recon_search.conflict.scores import ConflictScores
from recon_search.data.registry import find_source
from recon_search.graph.split import Split
from recon_search.recipe import Recipe
from recon_search.runs.comparison import Comparison, Row
from recon_search.runs.folder import RECIPE, read_recipe
from recon_search.stages.data import Looked, examine
from recon_search.stages.split import reading_of
from recon_search.views.report.comparing import spread
from recon_search.views.tables import show_p
from tests.benchmarks import ablation_table, search_table
from tests.benchmarks.beside import lacking, published_of, sittings, slashed, timed
from tests.benchmarks.summaries import SUMMARIES, interval_of, rows_of

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "recipes" / "results"
SCORES = "scores.safetensors"
DOCUMENTS = ("README.md", "recipes/README.md", "recipes/EVIDENCE.md")
PENDING = ("table-one",)
"""Results that wait for a machine; until then their place in a document says so."""

BLOCK = re.compile(r"(<!-- (\w+): ([\w, -]+) -->\n).*?(<!-- end -->)", flags=re.S)
"""A table's place: its kind, and the results that it is of."""


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


def record_of(run: Path, command: str, trainings: Iterable[Path] | None = None) -> dict[str, Any]:
    """What is kept of a run: its comparison or ablation, its probe, and how it came about.

    Args:
        run: its folder.
        command: that repeats it.
        trainings: their folders, where `run/trainings` holds others too.
    """
    if (run / ablation_table.FILE).is_file():
        return origin_of(run, command, trainings) | ablation_table.ablation_of(run)
    comparison, recipe = Comparison.load(run / "comparison.json"), read_recipe(run / RECIPE)
    return origin_of(run, command, trainings) | {
        "seeds": comparison.seeds,
        "directions": comparison.directions,
        "verdict": comparison.verdict,
        "warning": comparison.warning,
        "probe": probe_of(run, recipe) if (run / SCORES).is_file() else None,
        "overlaps": overlaps_of(recipe),
        "rows": [asdict(row) for row in comparison.rows],
    }


def probe_of(run: Path, recipe: Recipe) -> dict[str, Any]:
    """What a run's probe says of its ranking, and of splitting at all."""
    scores = ConflictScores.load(run / SCORES)
    k = max(1, len(Split.load(run / "split.json").layers))
    rule, reading = recipe.split.rule, reading_of(recipe)
    gate = measure_gate(scores, rule, reading, k)
    return {
        "rule": rule,
        "k": k,
        "seeds": scores.n_probes,
        "gate": _plain({**asdict(gate), "advice": gate.advice}),
        "reliability": _plain(asdict(measure_reliability(scores, rule, reading, k))),
    }


def overlaps_of(recipe: Recipe) -> list[dict[str, Any]]:
    """Which training samples each two tasks have in common; none where every sample has all."""
    schema = find_source(recipe.data, recipe.tasks).schema
    if schema.complete == set(schema.names):
        return []
    return [asdict(pair) for pair in examine(Looked(recipe)).overlaps]


def _plain(value: Any) -> Any:
    """Put null for what is no number, which JSON has no word for."""
    if isinstance(value, dict):
        return {key: _plain(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def origin_of(run: Path, command: str, trainings: Iterable[Path] | None = None) -> dict[str, Any]:
    """How what a run folder holds came about; of its comparison nothing, as if there were none."""
    folders = (run / "trainings").iterdir() if trainings is None else trainings
    results = [
        json.loads(path.read_text("utf-8"))
        for folder in sorted(folders)
        if (path := folder / "result.json").is_file()
    ]
    return {
        "command": command,
        "commit": _commit(),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "timm")},
        "trainings": len(results),
        "training_seconds": round(sum(result["seconds"] for result in results)),
        "seeds": [],
        "directions": {},
        "verdict": "",
        "warning": "",
        "rows": [],
    }


def filled(text: str) -> str:
    """Return a document with its tables made anew."""

    def fill(found: re.Match[str]) -> str:
        mark, kind, named, end = found.groups()
        names = named.split(", ")
        if any(name in PENDING and not (RESULTS / f"{name}.json").is_file() for name in names):
            return f"{mark}Not measured yet.\n{end}"
        results = {
            name: json.loads((RESULTS / f"{name}.json").read_text("utf-8")) for name in names
        }
        if kind == "result":
            return mark + "\n".join(map(_shown, results.values())) + end
        return mark + SUMMARIES[kind](results) + end

    return BLOCK.sub(fill, text)


def _shown(result: dict[str, Any]) -> str:
    """A result of another kind than a comparison says so."""
    kinds = {"search": search_table.tables_of, "ablation": ablation_table.tables_of}
    return kinds.get(result.get("kind", ""), table_of)(result)


def table_of(result: dict[str, Any]) -> str:
    """A result as a table, with what was said of it and how to repeat it."""
    rows = rows_of(result)
    if not rows:
        more = "".join(f"{each}\n\n" for each in timed(result))
        return f"No row is complete yet.\n\n{more}{sittings(result)}"
    published = published_of(result)
    columns = [(task, name) for task, own in result["directions"].items() for name in own]
    columns = columns if len(columns) <= 4 else []
    head = [
        "network",
        *(f"{task} {name}" for task, name in columns),
        "delta_m %",
        *(["published"] if published else []),
        "split's advantage",
        "p",
        "loss %",
        "parameters",
        "FLOPs",
        *(f"above line, {cost}" for cost in rows[0].prices),
    ]
    lines = [head, ["---"] * len(head), *(_cells(row, columns, published) for row in rows)]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    said = " ".join(filter(None, (result["verdict"], result["warning"])))
    more = "".join(f"{each}\n\n" for each in (lacking(result, rows), *timed(result)) if each)
    return (
        f"{text}\n\n{said}\n\n{more}{sittings(result)}"
        f"`{result['command']}` (seeds {_range(result['seeds'])}; "
        f"{result['trainings']} trainings; commit "
        f"{result['commit']}, {versions}, {result['machine']})\n"
    )


def _cells(row: Row, columns: list[tuple[str, str]], published: dict[str, Any]) -> list[str]:
    name = f"**{row.name}**" if row.role == "split" else row.name
    difference = row.minus_split
    advantage = "" if difference is None else interval_of(difference, sign=-1)
    heights = [
        "" if price.above is None or price.above.interval is None else interval_of(price.above)
        for price in row.prices.values()
    ]
    is_apart = row.role == "separate"
    return [
        name,
        *(spread(row.metrics[task][metric]) for task, metric in columns),
        "0" if is_apart else spread(row.delta_m, sign=True),
        *([slashed(published.get(row.name, []))] if published else []),
        advantage,
        show_p(difference),
        "0" if is_apart else spread(row.loss, sign=True),
        f"{row.prices['parameters'].ratio:.2f}x",
        f"{row.prices['FLOPs'].ratio:.2f}x",
        *heights,
    ]


def _range(seeds: list[int]) -> str:
    return f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0])


def _is_fresh(name: str) -> bool:
    text = (ROOT / name).read_text("utf-8")
    return filled(text) == text


def _commit() -> str:
    """The commit that this is, where it is a repository."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return found.stdout.strip()
    return "unknown"


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
