"""Tables of several results of record: what a question's trials say together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recon_search.records import fit
from recon_search.runs.comparison import Row
from recon_search.runs.paired import Difference, paired
from recon_search.runs.verdict import RELEVANT
from recon_search.views.report.comparing import spread

Results = Mapping[str, Mapping[str, Any]]
"""By name, what `evidence.record_of` returns."""

ADVISED = {"split": True, "do not split": False, "cannot tell": None}
WORDS = {True: "yes", False: "no", None: "not told"}


def gate_table(results: Results) -> str:
    """What the gate says before anything is split, what the split then gives, and who is right.

    A benefit, delta_m minus joint training's, counts as one where its whole interval lies above 0,
    as none where it lies below `RELEVANT` points.
    """
    lines, verdicts = [], []
    for name, result in results.items():
        gate = result["probe"]["gate"]
        benefit = _minus(result, "split", "joint")
        helps = is_help(benefit)
        advised = ADVISED[gate["advice"]]
        right = None if helps is None or advised is None else helps == advised
        verdicts.append(right)
        low, high = gate["interval"]
        share = "" if gate["share"] is None else f"{gate['share']:.2f} ({low:.2f} to {high:.2f})"
        given = interval_of(benefit)
        lines.append([name, share, gate["advice"], given, WORDS[helps], WORDS[right]])
    head = ["set", "share of conflict", "advice", "benefit of the split", "helps", "right"]
    told = [verdict for verdict in verdicts if verdict is not None]
    said = f"Right on {sum(told)} of the {len(told)} sets on which both are told"
    return f"{_table([head, *lines])}\n{said}, of {len(verdicts)}.\n\n{_source(results)}"


def overlap_table(results: Results) -> str:
    """How much a ranking and its split are worth by the samples that tasks have in common."""
    lines = []
    for name, result in results.items():
        pairs = result["overlaps"]
        shares = [pair["both"] / max(1, pair["either"]) for pair in pairs] or [1.0]
        found, k = result["probe"]["reliability"], result["probe"]["k"]
        lines.append(
            [
                name,
                " to ".join(f"{share:.0%}" for share in sorted({min(shares), max(shares)})),
                _number(found["tau"]),
                f"{_number(found['stability'])} of {k}",
                interval_of(_minus(result, "split", "joint")),
                interval_of(_minus(result, "split", "control", "random ")),
            ]
        )
    head = [
        "set",
        "samples in common",
        "tau of the halves",
        "another probe would find",
        "split minus joint",
        "split minus random",
    ]
    return f"{_table([head, *lines])}\n{_source(results)}"


def ways_table(results: Results) -> str:
    """What cheaper ways to a split give: in one training, and within a limit of computation."""
    head = ["set", "network", "delta_m %", "FLOPs", "above line, FLOPs", "above line, parameters"]
    lines = [head]
    for name, result in results.items():
        for row in rows_of(result):
            is_way = row.role in ("joint", "split", "during", "separate")
            if not is_way and not row.name.endswith("x FLOPs"):
                continue
            above = [row.prices[cost].above for cost in ("FLOPs", "parameters")]
            is_end = row.role in ("joint", "separate")
            lines.append(
                [
                    name,
                    row.name,
                    spread(row.delta_m, sign=True) if row.role != "separate" else "0",
                    f"{row.prices['FLOPs'].ratio:.2f}x",
                    *("" if is_end or each is None else interval_of(each) for each in above),
                ]
            )
    return f"{_table(lines)}\n{_source(results)}"


SUMMARIES = {"gate": gate_table, "overlap": overlap_table, "ways": ways_table}
"""By the word that a document calls for it."""


def is_help(benefit: Difference) -> bool | None:
    """Whether a split helps; None where seeds do not tell."""
    if benefit.interval is None:
        return None
    low, high = benefit.interval
    return True if low > 0 else False if high < RELEVANT else None


def rows_of(result: Mapping[str, Any]) -> list[Row]:
    """The rows of a result."""
    return [fit(Row, row, "the result", "A row", "Record it again.") for row in result["rows"]]


def interval_of(difference: Difference, sign: int = 1) -> str:
    """Show a mean difference with its interval."""
    mean = f"{sign * difference.mean:+.2f}"
    if difference.interval is None:
        return mean
    low, high = sorted(sign * end for end in difference.interval)
    return f"{mean} [{low:+.2f}, {high:+.2f}]"


def _minus(result: Mapping[str, Any], first: str, second: str, begins: str = "") -> Difference:
    """delta_m of the first row of one role minus that of another, whose name begins so."""
    rows = rows_of(result)
    one = next(row for row in rows if row.role == first)
    other = next(row for row in rows if row.role == second and row.name.startswith(begins))
    return paired(one.delta_m, other.delta_m)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _table(lines: list[list[str]]) -> str:
    head, *others = lines
    rows = [head, ["---"] * len(head), *others]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def _source(results: Results) -> str:
    """The command that makes the results, and where they were made."""
    places = sorted({f"commit {each['commit']}, {each['machine']}" for each in results.values()})
    seeds = sorted({len(each["seeds"]) for each in results.values()})
    many = " to ".join(map(str, sorted({seeds[0], seeds[-1]})))
    command = f"python -m tests.benchmarks.trials --out FOLDER --only {' '.join(results)}"
    return f"`{command}` ({many} seeds; {'; '.join(places)})\n"
