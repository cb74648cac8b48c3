"""Runs and searches below a folder, the best first."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from recon_search.disk import explained
from recon_search.errors import ReconSearchError
from recon_search.graph.split import Split
from recon_search.recipe import Recipe
from recon_search.runs.comparison import Comparison
from recon_search.runs.folder import ORIGIN, RECIPE, read_recipe
from recon_search.stages.compare import FILE as COMPARISON
from recon_search.stages.judge import SUMMARY
from recon_search.stages.origin import read_origin
from recon_search.tasks.scoring import mean_and_deviation
from recon_search.views.markup import escape
from recon_search.views.report.answer import its_joint, the_split
from recon_search.views.trials import read_summary

INSIDE = {"trainings", "model", "export", "tensorboard", "examples"}
"""Folders of a run that hold none."""

WIDE = 120
"""Columns of a terminal that has room for all."""
WITH_SEEDS = 92
"""Columns of one that has room for the number of seeds, too."""


@dataclass(frozen=True)
class Entry:
    """One run or search.

    Attributes:
        folder: below the one that was looked in.
        kind: `run` or `search`.
        state: `judged`, or in words how far it has come.
        data: name of the data set.
        backbone: its name.
        method: by which the split network was trained.
        begun: when, as far as it is known.
        delta_m: mean over seeds on test data, of the split; None where it was not judged.
        deviation: of that.
        over_joint: mean paired difference to the unsplit network of the same method.
        interval: of the difference, 95 %; None of one seed.
        flops: in multiples of joint training's.
        parameters: likewise.
        layers: that are split.
        seeds: number of seeds.
    """

    folder: str
    kind: str
    state: str
    data: str
    backbone: str
    method: str
    begun: str
    delta_m: float | None = None
    deviation: float | None = None
    over_joint: float | None = None
    interval: tuple[float, float] | None = None
    flops: float | None = None
    parameters: float | None = None
    layers: int | None = None
    seeds: int | None = None


def find_entries(folder: Path) -> tuple[list[Entry], list[str]]:
    """Read what runs and searches below a folder have found.

    Links are not followed, nor is anything trained or opened for writing.

    Returns:
        The entries, the highest delta_m first, those without one last; and a line for each folder
        that is damaged.

    Raises:
        FileError: the folder itself cannot be read.
    """
    entries, faults = [], []
    for place in _runs(folder):
        try:
            entries.append(_read(place, str(place.relative_to(folder))))
        except (ReconSearchError, OSError) as error:
            faults.append(f"{place} was left out: {' '.join(str(error).split())}")
    return sorted(entries, key=_best_first), faults


def entry_rows(entries: list[Entry]) -> list[dict[str, Any]]:
    """The entries as plain values."""
    return [asdict(entry) for entry in entries]


def entry_table(entries: list[Entry], folder: Path, width: int) -> Table:
    """The entries as a table; in a narrow terminal without intervals, backbones, dates, seeds."""
    is_wide = width >= WIDE
    counts = ("layers", "seeds") if width >= WITH_SEEDS else ("layers",)
    interval = ", with its 95 % interval" if is_wide else ""
    table = Table(
        title=escape(f"Runs below {folder}"),
        title_justify="left",
        caption="Split networks on test data: mean ± standard deviation over seeds. Over joint: "
        f"the paired difference to the unsplit network{interval}. FLOPs and parameters in "
        "multiples of its.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("run", overflow="fold", min_width=12)
    for name in ("delta_m %", "over joint", "FLOPs", "params", *counts):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("data", overflow="fold", min_width=8)
    if is_wide:
        table.add_column("backbone", overflow="fold")
        table.add_column("begun", style="dim", no_wrap=True)
    for entry in entries:
        more = [escape(entry.backbone), entry.begun[:10]] if is_wide else []
        name = escape(entry.folder)
        numbers = [
            "" if entry.delta_m is None else f"{entry.delta_m:+.2f}" + _plus_minus(entry.deviation),
            _difference(entry, with_interval=is_wide),
            _times(entry.flops),
            _times(entry.parameters),
            *("" if (n := getattr(entry, each)) is None else str(n) for each in counts),
        ]
        if entry.delta_m is None:
            name += f" [dim]({escape(entry.state)})[/dim]"
        table.add_row(name, *numbers, escape(entry.data), *more)
    return table


def _runs(folder: Path) -> Iterator[Path]:
    with explained(folder, "read"):
        list(os.scandir(folder))
    for place, folders, files in os.walk(folder):
        is_run = RECIPE in files and {ORIGIN, COMPARISON, SUMMARY} & set(files)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not (is_run and name in INSIDE)
        )
        if is_run:
            yield Path(place)


def _read(place: Path, name: str) -> Entry:
    best = place / "best.json"  # where a search chose it
    recipe = read_recipe(best if best.is_file() else place / RECIPE)
    is_search = any((place / each).exists() for each in (SUMMARY, "search.db"))
    if not (place / COMPARISON).is_file():
        return _unjudged(place, name, recipe, is_search=is_search)
    comparison = Comparison.load(place / COMPARISON)
    split, joint = the_split(comparison), its_joint(comparison)
    difference = joint.minus_split  # joint minus split
    mean, deviation = mean_and_deviation(split.delta_m)
    ends = None if difference is None else difference.interval
    path = place / "split.json"
    return Entry(
        folder=name,
        kind="search" if is_search else "run",
        state="judged",
        data=recipe.data.name,
        backbone=recipe.backbone.name,
        method=split.method,
        begun=_begun(place),
        delta_m=mean,
        deviation=deviation if len(split.delta_m) > 1 else None,
        over_joint=None if difference is None else 0.0 - difference.mean,
        interval=None if ends is None else (-ends[1], -ends[0]),
        flops=split.flops / joint.flops,
        parameters=split.n_parameters / joint.n_parameters,
        layers=len(Split.load(path).layers) if path.is_file() else None,
        seeds=len(comparison.seeds),
    )


def _unjudged(place: Path, name: str, recipe: Recipe, *, is_search: bool) -> Entry:
    state = "not judged"
    if (place / SUMMARY).is_file():
        summary = read_summary(place / SUMMARY)
        state = f"{summary['tally']}; {summary['best']}, not judged"
    elif (place / "scores.safetensors").is_file():
        state = "probed, not judged"
    return Entry(
        folder=name,
        kind="search" if is_search else "run",
        state=state,
        data=recipe.data.name,
        backbone=recipe.backbone.name,
        method=recipe.train.method,
        begun=_begun(place),
    )


def _begun(place: Path) -> str:
    known = read_origin(place).get("begun")
    if isinstance(known, str):
        return known
    changed = datetime.fromtimestamp((place / RECIPE).stat().st_mtime)
    return changed.astimezone().isoformat(timespec="seconds")


def _best_first(entry: Entry) -> tuple[bool, float, str]:
    value = entry.delta_m
    is_known = value is not None and math.isfinite(value)
    return not is_known, -(value or 0.0) if is_known else 0.0, entry.folder


def _difference(entry: Entry, *, with_interval: bool) -> str:
    if entry.over_joint is None:
        return ""
    if entry.interval is None or not with_interval:
        return f"{entry.over_joint:+.2f}"
    low, high = entry.interval
    return f"{entry.over_joint:+.2f} ({low:+.2f} to {high:+.2f})"


def _plus_minus(deviation: float | None) -> str:
    return "" if deviation is None else f" ± {deviation:.2f}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}x"
