"""One training, cached by content: run, gone on with, waited for, or taken as it is."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from recon_search import interruption, parallel
from recon_search.data.transforms import SCALES
from recon_search.model.copies import folded
from recon_search.model.files import load
from recon_search.model.network import MultiTaskModel
from recon_search.runs.deadline import OutOfTime, in_time
from recon_search.runs.fitting import STATE, branch_off, count_flops, fit_training
from recon_search.runs.listener import News
from recon_search.runs.lock import held
from recon_search.runs.result import HISTORY, Result
from recon_search.runs.run import Run
from recon_search.runs.training import Training
from recon_search.tasks.task import Metrics
from recon_search.training.checkpoint import (
    CHECKPOINT,
    delete_checkpoint,
    load_checkpoint,
    n_epochs,
    save_checkpoint,
    write_history,
)
from recon_search.training.evaluation import evaluate
from recon_search.training.loop import AfterEpoch, Report
from recon_search.training.stopping import Record, reported

logger = logging.getLogger(__name__)


def train(
    training: Training,
    run: Run,
    report: Report | None = None,
    after_epoch: AfterEpoch | None = None,
) -> Result:
    """Run a training, or go on with it, or take its result where it is done.

    Its folder then holds `result.json`, `metrics.jsonl`, `scores.safetensors` if conflicts were
    measured, and the model directory `model`.

    Where another process trains the same, it is waited for.

    Raises:
        OutOfTime: the run's deadline has come; the folder holds a checkpoint, if an epoch is done.
        Interrupted: a signal came; the folder holds a checkpoint, if a step was taken.
    """
    directory = training.directory(run)
    known = Result.load(directory)
    if known is None or _is_open(training, known):
        with held(directory, training.name, functools.partial(_wait, run)):
            known = Result.load(directory)  # another process may have got there first
            if known is None:
                return _train(training, run, report, after_epoch)
            known = _close(training, run, known)
    if after_epoch is not None:
        for record in known.history():
            after_epoch(record)
    return known


def _is_open(training: Training, known: Result) -> bool:
    """Whether something is left to do for a training that has a result."""
    is_left = (known.directory / CHECKPOINT).exists()  # of a process that died just then
    return is_left or (training.test and known.test is None)


def _close(training: Training, run: Run, known: Result) -> Result:
    """Do what is left to do for a training that has a result."""
    if training.test and known.test is None:
        model = load(known.directory / "model").to(run.device)
        known = replace(known, test=_test(training, model, run, known.history()))
        known.save()
    delete_checkpoint(known.directory / CHECKPOINT)
    return known


def _wait(run: Run, other: str) -> None:
    """Wait for another process that trains the same."""
    interruption.check()
    if run.deadline is not None and run.deadline.is_over():
        raise OutOfTime
    logger.info("Waiting for %s.", other)


def _train(
    training: Training, run: Run, report: Report | None, after_epoch: AfterEpoch | None
) -> Result:
    directory, earlier = training.directory(run), 0.0
    if training.start is not None:
        before = train(training.start, run, report)
        earlier = before.seconds if training.goes_on else 0.0
        if training.goes_on and not os.path.lexists(directory / CHECKPOINT):
            branch_off(training, before, run)
    started = time.perf_counter()
    if run.deadline is not None:
        if run.deadline.refuses():
            raise OutOfTime
        trained, last = n_epochs(directory / CHECKPOINT), training.until or training.train.epochs
        after_epoch = in_time(run.deadline, after_epoch, known=trained, last=last)
    parallel.agree((training, run.silent()))  # other processes of a group wait for it
    model, scores, history = fit_training(training, run, report, after_epoch)
    result = Result(
        tasks=training.tasks,
        method=training.train.method,
        seed=training.seed,
        n_parameters=model.n_parameters,
        flops=count_flops(folded(model), torch.zeros(1, *run.schema.shape, device=run.device)),
        validation=reported(history, training.train, "validation"),
        seconds=round(earlier + time.perf_counter() - started, 2),
        directory=directory,
        epochs=len(history),
    )
    if training.test:
        result = replace(result, test=_test(training, model, run, history))
    if scores is not None:
        scores.save(directory / "scores.safetensors")
    model.config |= _input_config(run)
    model.save(directory / "model", metrics={"validation": result.validation})
    write_history(directory, history)
    if training.until is not None:
        save_checkpoint(directory / STATE, load_checkpoint(directory / CHECKPOINT))
    result.save()
    delete_checkpoint(directory / CHECKPOINT)
    return result


def train_told(
    training: Training,
    run: Run,
    tell: Callable[[News], None],
    after_epoch: AfterEpoch | None = None,
) -> Result:
    """Run a training (see `train`) and tell how it goes: of what is trained now, not of before."""
    known = _n_recorded(training.directory(run))

    def hear(record: dict[str, Any]) -> None:
        if record["epoch"] > known:
            tell(record)
        if after_epoch is not None:
            after_epoch(record)

    tell("start")
    return train(training, run, tell, hear)


def _n_recorded(directory: Path) -> int:
    """Number of epochs that a training has trained before, by its records."""
    if not (Result.is_in(directory) or (directory / CHECKPOINT).is_file()):
        return 0  # it begins anew, whatever else is left there
    try:
        return (directory / HISTORY).read_bytes().count(b"\n")
    except OSError:
        return 0


def _test(
    training: Training, model: MultiTaskModel, run: Run, history: Sequence[Record]
) -> Metrics:
    if training.train.report_epochs > 1:
        return reported(history, training.train, "test")
    with contextlib.closing(run.feed) as feed:
        return evaluate(model, feed, "test", training.train)


def _input_config(run: Run) -> dict[str, Any]:
    """How images were made ready: what a user of the model must do as well."""
    inputs = run.feed.inputs
    return {
        "input": {
            "shape": run.schema.shape,
            "mean": inputs.mean.tolist(),
            "std": inputs.std.tolist(),
            "scale": SCALES[inputs.scale],
            **inputs.fitting,
        }
    }
