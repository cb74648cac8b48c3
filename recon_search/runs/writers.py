"""Curves for TensorBoard, trackio and Weights & Biases: an epoch's numbers, by listening."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recon_search.disk import in_one_line
from recon_search.errors import RecipeError, nearest
from recon_search.runs.events import EventLog
from recon_search.runs.folder import EVENTS
from recon_search.runs.listener import Listener, Listeners
from recon_search.runs.run import Run
from recon_search.training.flat import flatten
from recon_search.training.stopping import Record


class TensorBoardLog(Listener):
    """Writes event files, a folder a training: `tensorboard --logdir OUT/tensorboard`.

    Args:
        out: the run folder.
    """

    def __init__(self, out: Path) -> None:
        self._out, self._folder = out, out / "tensorboard"
        self._open: dict[str, Any] = {}

    def epoch(self, name: str, record: Record) -> None:
        """Write an epoch's numbers."""
        if name not in self._open:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what it imports
                board = importlib.import_module("torch.utils.tensorboard")
                self._open[name] = board.SummaryWriter(str(self._folder / _folder_name(name)))
        for path, value in _numbers(record).items():
            self._open[name].add_scalar(path, value, record["epoch"])
        self._open[name].flush()

    def finish(self, name: str, seconds: float) -> None:
        """Close a training's file."""
        if name in self._open:
            self._open.pop(name).close()

    def apart(self, stage: str) -> TensorBoardLog:
        """Return one that writes its trainings' files beside those of this one."""
        return TensorBoardLog(self._out)

    def end(self) -> None:
        """Close what is open."""
        for name in list(self._open):
            self.finish(name, 0.0)


class TrackerLog(Listener):
    """Writes to what has wandb's functions: one of its runs for all, `TRAINING/...` a number.

    Where it writes to, and whether it reports to a server, its own settings and environment
    variables say.

    Args:
        package: `wandb` or `trackio`.
        out: the run folder, by which the run is called.
    """

    def __init__(self, package: str, out: Path) -> None:
        self._package, self._out = package, out
        self._run: Any = None

    def epoch(self, name: str, record: Record) -> None:
        """Write an epoch's numbers."""
        if self._run is None:
            tracker = importlib.import_module(self._package)
            with contextlib.redirect_stdout(sys.stderr):  # what they print is no result
                self._run = tracker.init(project="recon-search", name=self._out.resolve().name)
        with contextlib.redirect_stdout(sys.stderr):
            self._run.log({f"{name}/{path}": value for path, value in _numbers(record).items()})

    def end(self) -> None:
        """Finish the run; what comes after begins another."""
        if self._run is not None:
            with contextlib.redirect_stdout(sys.stderr):
                self._run.finish()
            self._run = None


WRITERS: dict[str, Callable[[Path], Listener]] = {
    "tensorboard": TensorBoardLog,
    "trackio": lambda out: TrackerLog("trackio", out),
    "wandb": lambda out: TrackerLog("wandb", out),
}
"""What `--log` names; each needs the package of its name."""


def check_writers(names: Sequence[str]) -> None:
    """Refuse a writer that is unknown or whose package is missing.

    Raises:
        RecipeError: says what to install.
    """
    for name in names:
        if name not in WRITERS:
            known = ", ".join(WRITERS)
            raise RecipeError(
                f"--log must be one of {known}, got '{name}'.{nearest(name, WRITERS)}"
            )
        if importlib.util.find_spec(name) is None:
            raise RecipeError(
                f"--log {name} needs the package {name}, which is not installed. Run: pip install "
                f"'recon-search[{name}]'"
            )


def logged(run: Run, writers: Sequence[str] = ()) -> Run:
    """Return the same run, which also appends to `events.jsonl` and writes what `writers` name.

    The run folder must be open.

    Raises:
        RecipeError: see `check_writers`.
    """
    check_writers(writers)
    made = [WRITERS[name](run.out) for name in dict.fromkeys(writers)]
    return replace(run, listener=Listeners([run.listener, EventLog(run.out / EVENTS), *made]))


def _numbers(record: Record) -> dict[str, float]:
    return {
        path: float(value)
        for path, value in flatten(record).items()
        if isinstance(value, bool | int | float) and path != "epoch"
    }


def _folder_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in " ,.-_=" else "_" for c in in_one_line(name))[:150]
