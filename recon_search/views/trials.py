"""A search as people see it: progress, the table of its trials, the best one in words."""

from __future__ import annotations

import functools
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field
from rich import box
from rich.cells import cell_len
from rich.table import Table

from recon_search import artefact
from recon_search.records import Record, fit
from recon_search.search.ending import ending_of
from recon_search.search.importance import importances
from recon_search.search.measure import Name, measure_of
from recon_search.search.rungs import last_value, seeds_of
from recon_search.search.tally import STATES, Tally, seconds, tally
from recon_search.views.markup import escape

FORMAT = "recon-search/search/1"
UNKNOWN = "?"
KEYS = 4
"""Keys whose importance is shown."""
OPTIONAL = ("epochs", "seconds", "layers", "FLOPs", "parameters")
"""Columns that a narrow terminal does without, the first of them first."""
ATTRIBUTES = ("layers", "n_parameters", "flops", "epochs", "same_as", "owner", "error")


def summarise(study: Study) -> dict[str, Any]:
    """A study as plain values: `study`, `tally`, `best` in words, and its `trials` in order.

    `ended` says why it ended before it had its trials, "" where it did not; `importances` which
    keys mattered. What trials are judged by, `measure`, is the key of their values; of several
    seeds it is the mean over those trained.
    """
    trials = study.get_trials(deepcopy=False)
    if len(study.directions) > 1:
        best = {trial.number for trial in study.best_trials}
    else:
        first = max(_completed(trials), key=lambda trial: trial.values[0], default=None)
        best = set() if first is None else {first.number}
    return {
        "study": study.study_name,
        "tally": describe_tally(tally(trials)),
        "best": describe_best(trials),
        "ended": str(ending_of(study) or ""),
        "importances": importances(study),
        "measure": (measure := measure_of(study)),
        "trials": [
            {
                "trial": trial.number,
                "state": describe_state(trial),
                "is_best": trial.number in best,
                **{name: last_value(trial) if name == measure else None for name in get_args(Name)},
                "split": describe_split(trial),
                "params": trial.params,
                "seconds": round(seconds(trial), 1),
                "by_seed": seeds_of(trial.user_attrs),
                **{name: trial.user_attrs.get(name) for name in ATTRIBUTES},
            }
            for trial in trials
        ],
    }


class _Row(Record):
    trial: int
    state: str
    is_best: bool
    delta_m: float | None
    loss: float | None = None
    by_seed: Annotated[list[float], Field(default_factory=list)]
    split: str
    params: dict[str, Any]
    seconds: float
    layers: list[str] | None
    n_parameters: float | None
    flops: float | None
    epochs: int | None
    same_as: int | None
    owner: str | None
    error: str | None


class _Summary(Record):
    study: str
    tally: str
    best: str
    ended: str = ""
    importances: dict[str, float] = Field(default_factory=dict)
    measure: Name = "delta_m"
    trials: list[_Row]


def write_summary(summary: dict[str, Any], path: Path) -> None:
    """Write what `summarise` gave."""
    artefact.write_json(path, {"format": FORMAT, **summary})


def read_summary(path: Path) -> dict[str, Any]:
    """Read what `write_summary` wrote.

    Raises:
        ArtefactError: the file is missing, damaged or changed.
    """
    values = artefact.read_object(path, "search summary", FORMAT, None, finite=False)
    values.pop("format", None)
    found = fit(_Summary, values, path, "A search summary", "Run the search's command again.")
    return found.model_dump()


def trial_table(summary: dict[str, Any], width: int = sys.maxsize) -> Table:
    """Every trial that was completed, best first, then the others.

    Columns that have no room in so many are left out, the least telling ones first.
    """
    measure = summary["measure"]
    rows = sorted(summary["trials"], key=functools.partial(_best_first, measure))
    columns = {
        "trial": [str(row["trial"]) for row in rows],
        "state": [row["state"] for row in rows],
        f"{measure} %": [_value(row[measure], row["by_seed"]) for row in rows],
        "seeds": [str(len(row["by_seed"]) or "") for row in rows],
        "split": [row["split"] for row in rows],
        "layers": ["" if row["layers"] is None else str(len(row["layers"])) for row in rows],
        "parameters": [_short(row["n_parameters"]) for row in rows],
        "FLOPs": [_short(row["flops"]) for row in rows],
        "epochs": ["" if row["epochs"] is None else str(row["epochs"]) for row in rows],
        "seconds": [f"{row['seconds']:.1f}" for row in rows],
    }
    widths = {name: 2 + max(map(cell_len, (name, *own))) for name, own in columns.items()}
    left_out = [name for name in (*OPTIONAL, "seeds") if not any(columns[name])]
    for name in OPTIONAL:
        if sum(widths[each] for each in columns if each not in left_out) > width:
            left_out.append(name)
    shown = {name: own for name, own in columns.items() if name not in left_out}
    notes = [f"Validation data; {describe_outcome(summary)}."]
    if shares := summary["importances"]:
        notes.append(f"What mattered, by fANOVA: {describe_importances(shares)}.")
    table = Table(
        title=escape(f"Study {summary['study']}: {summary['tally']}"),
        title_justify="left",
        caption=escape("\n".join(notes)),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for name in shown:
        justify: Any = "left" if name in ("state", "split") else "right"
        table.add_column(name, justify=justify, no_wrap=name != "split")
    for row, cells in zip(rows, zip(*shown.values(), strict=True), strict=True):
        table.add_row(*map(escape, cells), style="bold" if row["is_best"] else None)
    return table


def describe_outcome(summary: dict[str, Any]) -> str:
    """The best trial of a summary, and why the search has ended if that was early."""
    return f"{summary['best']}{summary['ended'] and '; ended: ' + summary['ended']}"


def describe_importances(shares: dict[str, float]) -> str:
    """The keys that matter most, with their shares."""
    return ", ".join(f"{name} {share:.0%}" for name, share in list(shares.items())[:KEYS])


def describe_tally(now: Tally) -> str:
    """The study's numbers in words."""
    counts = {
        "complete": now.complete,
        "pruned": now.pruned,
        "running": now.running,
        "waiting": now.waiting,
        "failed": now.failed,
        "deduplicated": now.deduplicated,
        "retried": now.retried,
    }
    text = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return (text or "no trials yet") + (", nothing new to try" if now.is_exhausted else "")


def describe_best(trials: Sequence[FrozenTrial]) -> str:
    """The best completed trial in words."""
    best = max(_completed(trials), key=lambda trial: trial.values[0], default=None)
    if best is None:
        return "none complete"
    return f"best {best.values[0]:+.2f} % (trial {best.number}: {describe_split(best)})"


def describe_state(trial: FrozenTrial) -> str:
    """What became of a trial."""
    attributes = trial.user_attrs
    if "surplus" in attributes:
        return "not needed"
    if "same_as" in attributes:
        return f"= trial {attributes['same_as']}"
    if trial.state == TrialState.FAIL and "error" not in attributes:
        return "worker died"
    return STATES[trial.state]


def describe_split(trial: FrozenTrial) -> str:
    """What a trial drew, or is to draw where that is queued, in words."""
    params = trial.system_attrs.get("fixed_params", {}) | trial.params
    rule = params.pop("split.rule", UNKNOWN)
    words = [f"{rule}, k = {params.pop('split.k', UNKNOWN)}"]
    if "split.threshold" in params:
        words.append(f"S = {params.pop('split.threshold'):g}")
    if params.pop("split.grouping", "private") == "colour":
        share = params.pop("split.group_share", None)  # None: it died before it drew one
        words.append("colour" if share is None else f"colour {share:g}")
    words += [f"{path.partition('.')[2] or path} = {value}" for path, value in params.items()]
    return ", ".join(words)


def _completed(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [t for t in trials if t.state == TrialState.COMPLETE and "same_as" not in t.user_attrs]


def _value(value: float | None, seeds: Sequence[float]) -> str:
    """What a trial is judged by, and how its seeds scatter."""
    if value is None:
        return ""
    return f"{value:+.2f}" + (f" ± {statistics.stdev(seeds):.2f}" if len(seeds) > 1 else "")


def _best_first(measure: str, row: dict[str, Any]) -> tuple[bool, float, int]:
    value = row[measure]
    is_known = value is not None and not math.isnan(value)
    return row["state"] != "complete", -value if is_known else math.inf, row["trial"]


def _short(value: float | None) -> str:
    """A large number with three digits."""
    if value is None:
        return ""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"
