"""Many trainings: at once in processes of their own, or one after another."""

from __future__ import annotations

import functools
import multiprocessing
import os
import queue
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TypeAlias

import torch

from recon_search import interruption, parallel
from recon_search.errors import TrainingError
from recon_search.interruption import Stopped
from recon_search.runs import worker
from recon_search.runs.listener import Listener, News
from recon_search.runs.result import Result
from recon_search.runs.run import Run
from recon_search.runs.trainer import train_told
from recon_search.runs.training import Training


def train_all(trainings: Sequence[Training], run: Run, title: str) -> list[Result]:
    """Run trainings and return their results in order; equal ones run once.

    The cores are divided among the workers.

    Args:
        trainings: what to train.
        run: where, with how many workers.
        title: what its listener is told that they are for.

    Raises:
        Stopped: time is up or a signal came; says how many are left.
    """
    unique = {training.directory(run): training for training in trainings}
    workers = min(n_workers(run), len(unique))
    with run.listener.over(title, len(unique)):
        alone = workers <= 1
        with counted(list(unique), title):
            results = _one_by_one(unique, run) if alone else _in_processes(unique, run, workers)
    return [results[training.directory(run)] for training in trainings]


@contextmanager
def counted(directories: Sequence[Path], title: str) -> Iterator[None]:
    """Let what ends a block before it is done say how many of its trainings are left."""
    try:
        yield
    except Stopped as stopped:
        left = [directory for directory in directories if not Result.is_in(directory)]
        begun = sum((directory / "checkpoint.safetensors").is_file() for directory in left)
        n = len(directories)
        stopped.args = (f"{title}: {n - len(left)} of {n} trainings are done, {begun} more begun",)
        raise


def n_workers(run: Run) -> int:
    """Trainings at once: what is asked for, else one a core on the CPU and one on a GPU.

    A small network leaves most of a GPU idle, a large one fills it: so it is shared where that is
    asked for. A group of processes works on one training at a time.
    """
    if parallel.size() > 1:
        return 1
    return run.workers or (os.cpu_count() or 1 if run.device.type == "cpu" else 1)


def _one_by_one(unique: dict[Path, Training], run: Run) -> dict[Path, Result]:
    results = {}
    for directory, training in unique.items():
        tell = functools.partial(run.listener.hear, training.name)
        with _named(training):
            results[directory] = train_told(training, run, tell)
        _finish(training, results[directory], run)
    return results


def _in_processes(unique: dict[Path, Training], run: Run, at_once: int) -> dict[Path, Result]:
    threads = max(1, torch.get_num_threads() // at_once)
    results: dict[Path, Result] = {}
    with interruption.in_order(), _workers(n_workers(run)) as workers:
        pending: dict[Future[Result], Path] = {
            workers.executor.submit(_train_in_worker, training, run.silent(), threads): directory
            for directory, training in unique.items()
        }
        while pending:
            if interruption.is_asked():
                workers.stop.set()
                wait(pending)  # those not begun end at once; an executor trips on cancelled ones
                interruption.check()
            done, _ = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            _tell(workers, run.listener)
            for future in done:
                directory = pending.pop(future)
                try:
                    with _named(unique[directory]):
                        results[directory] = future.result()
                except Stopped:
                    wait(pending)  # for their epochs
                    raise
                except BrokenProcessPool:
                    raise TrainingError(
                        f"Every worker must live until its training ends, one did not, in "
                        f"{unique[directory].name} or beside it: it was killed, or memory was "
                        "short. Lower --workers, and run the command again with --resume."
                    ) from None
                _tell(workers, run.listener, until=str(directory))
                _finish(unique[directory], results[directory], run)
    return results


@contextmanager
def _named(training: Training) -> Iterator[None]:
    """Let an error of a training say which it was."""
    try:
        yield
    except TrainingError as error:
        error.training = training.name
        raise


def _finish(training: Training, result: Result, run: Run) -> None:
    run.listener.finish(training.name, result.seconds)
    tell_skipped(training, result, run)


def tell_skipped(training: Training, result: Result, run: Run) -> None:
    """Say how many steps of a training were left out, if any were."""
    if training.train.non_finite == "skip":
        n = sum(record.get("skipped", 0) for record in result.history())
        if n:
            run.listener.say(
                f"Warning: {n} steps of {training.name} were skipped, a loss or a gradient was not "
                "finite."
            )


_Steps: TypeAlias = "multiprocessing.Queue[tuple[str, News | None]]"
"""Names of trainings with their news; a folder with None once its training has told all."""


@dataclass(frozen=True)
class _Workers:
    """Processes that train.

    Attributes:
        executor: of them.
        steps: in which they tell how they get on.
        stop: lets them end in order.
        told: folders of the trainings that have told all.
    """

    executor: ProcessPoolExecutor
    steps: _Steps
    stop: Event
    told: set[str] = field(default_factory=set)


PATIENCE = 5.0
"""Seconds to wait for what a worker that has a result may still have to tell."""

_kept: ExitStack | None = None
_by_number: dict[int, _Workers] = {}


@contextmanager
def kept_workers() -> Iterator[None]:
    """Let every `train_all` inside use the same processes, which start and read the data once."""
    global _kept
    with ExitStack() as _kept:
        try:
            yield
        finally:
            _kept = None
            _by_number.clear()


@contextmanager
def _workers(n: int) -> Iterator[_Workers]:
    """The kept workers, or some for this block alone."""
    if _kept is None:
        with _started(n) as workers:
            yield workers
        return
    if n not in _by_number:
        _by_number[n] = _kept.enter_context(_started(n))
    yield _by_number[n]


@contextmanager
def _started(n: int) -> Iterator[_Workers]:
    """Start workers, and let them go in the end: in an error after the step that they are in.

    They follow this process before they import what they need, which takes seconds.
    """
    context = multiprocessing.get_context("spawn")
    steps: _Steps = context.Queue()
    stop = context.Event()
    executor = ProcessPoolExecutor(
        n, mp_context=context, initializer=worker.follow, initargs=(os.getpid(), stop, steps)
    )
    try:
        yield _Workers(executor, steps, stop)
    except BaseException:
        stop.set()
        processes = list((executor._processes or {}).values())
        try:
            executor.shutdown(cancel_futures=True)
        except BaseException:  # a second signal
            for process in processes:
                process.kill()
            raise
        raise
    executor.shutdown()


def _tell(workers: _Workers, listener: Listener, until: str | None = None) -> None:
    """Tell what workers have told, and wait for the last word of a training where one is named.

    A result may come before what was told of its training, for they take different ways.
    """
    ends = time.monotonic() + PATIENCE
    while True:
        try:
            if until is None or until in workers.told:
                name, news = workers.steps.get_nowait()
            else:
                name, news = workers.steps.get(timeout=max(0.0, ends - time.monotonic()))
        except queue.Empty:
            return
        if news is None:
            workers.told.add(name)
        else:
            listener.hear(name, news)


def _train_in_worker(training: Training, run: Run, threads: int) -> Result:
    assert worker.steps is not None
    interruption.check()
    torch.set_num_threads(threads)
    put = worker.steps.put
    result = train_told(training, run, lambda news: put((training.name, news)))
    put((str(training.directory(run)), None))
    return result
