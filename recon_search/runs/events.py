"""`events.jsonl`: what a listener hears of a run, a line each, for who reads along."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from recon_search import json_text
from recon_search.disk import explained, refuse_special
from recon_search.runs.listener import Listener
from recon_search.training.stopping import Record

KEPT = ("layers", "n_parameters", "flops", "epochs", "same_as", "error")
"""Attributes of a trial that its line has."""


class EventLog(Listener):
    """Appends to a file: every line is one write, and a run that goes on goes on with the file.

    Each line is a JSON object with `time`, `event` and what belongs to that: `begin` (`stage`,
    `trainings`), `epoch` (`stage`, `training`, and the record of `metrics.jsonl`), `done`
    (`stage`, `training`, `seconds`), `trial` (of a search, where `training` is "trial N"), `say`
    (`text`), `end` (`stage`). A number that is not finite is null. An epoch that a kill has kept
    from the file is in its training's `metrics.jsonl` all the same.

    Args:
        path: the file; made with the first line.
        stage: that is under way; none if empty.
    """

    def __init__(self, path: Path, stage: str = "") -> None:
        self._path = path
        self._stages = [stage] if stage else []
        self._seen: set[int] | None = None

    def begin(self, title: str, total: int) -> None:
        """Write that a stage begins."""
        self._stages.append(title)
        self._write("begin", trainings=total)

    def epoch(self, name: str, record: Record) -> None:
        """Write an epoch's record."""
        self._write("epoch", training=name, **record)

    def finish(self, name: str, seconds: float) -> None:
        """Write that a training is done."""
        self._write("done", training=name, seconds=seconds)

    def end(self) -> None:
        """Write that a stage is over."""
        self._write("end")
        self._stages.pop()

    def say(self, text: str) -> None:
        """Write a sentence."""
        self._write("say", text=text)

    def study(
        self, name: str, total: int, trials: Sequence[Any], directions: Sequence[Any]
    ) -> None:
        """Write the trials that have ended since the last call; the first call's were before."""
        ended = {trial.number for trial in trials if trial.state.is_finished()}
        for trial in trials:
            if self._seen is not None and trial.number in ended - self._seen:
                self._write(
                    "trial",
                    study=name,
                    trial=trial.number,
                    state=trial.state.name.lower(),
                    values=trial.values,
                    params=trial.params,
                    **{key: trial.user_attrs[key] for key in KEPT if key in trial.user_attrs},
                )
        self._seen = ended

    def apart(self, stage: str) -> EventLog:
        """Return one that writes into the same file, as processes may."""
        return EventLog(self._path, stage)

    def _write(self, event: str, **more: Any) -> None:
        time = datetime.now().astimezone().isoformat(timespec="milliseconds")
        stage = {"stage": self._stages[-1]} if self._stages else {}
        value = json_text.finite({"time": time, "event": event, **stage, **more})
        line = json.dumps(value, allow_nan=False) + "\n"
        refuse_special(self._path)
        with explained(self._path, "written"), contextlib.ExitStack() as stack:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
            handle = os.open(self._path, flags, 0o666)
            stack.callback(os.close, handle)
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":  # a full disk has cut the last one
                line = "\n" + line
            left = line.encode()
            while left := left[os.write(handle, left) :]:
                pass  # a disk that is full by now takes a part, and refuses the rest
