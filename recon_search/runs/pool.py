"""Many trainings: one process a core on the CPU, else, and under `torchrun`, one after another."""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from recon_search import parallel
from recon_search.runs.deadline import OutOfTime
from recon_search.runs.listener import Listener
from recon_search.runs.result import Result
from recon_search.runs.run import Run
from recon_search.runs.training import Training, reporter, train
from recon_search.training.loop import Progress


def train_all(trainings: Sequence[Training], run: Run, title: str) -> list[Result]:
    """Run trainings and return their results in order; equal ones run once.

    On the CPU the cores are divided among the workers.

    Args:
        trainings: what to train.
        run: where, with how many workers.
        title: what its listener is told that they are for.

    Raises:
        OutOfTime: the run's deadline has come, and says how many are left.
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
    """Let what ends a block out of time say how many of its trainings are left."""
    try:
        yield
    except OutOfTime:
        left = [directory for directory in directories if not Result.is_in(directory)]
        begun = sum((directory / "checkpoint.safetensors").is_file() for directory in left)
        n = len(directories)
        raise OutOfTime(
            f"{title}: {n - len(left)} of {n} trainings are done, {begun} more begun"
        ) from None


def n_workers(run: Run) -> int:
    """Trainings at once: what is asked for, or one a core on the CPU.

    A GPU is not shared, and a group of processes works on one training at a time.
    """
    if run.device.type != "cpu" or parallel.size() > 1:
        return 1
    return run.workers or os.cpu_count() or 1


def _one_by_one(unique: dict[Path, Training], run: Run) -> dict[Path, Result]:
    results = {}
    for directory, training in unique.items():
        results[directory] = train(training, run, reporter(training, run))
        run.listener.finish(training.name, results[directory].seconds)
    return results


def _in_processes(unique: dict[Path, Training], run: Run, at_once: int) -> dict[Path, Result]:
    threads = max(1, torch.get_num_threads() // at_once)
    results: dict[Path, Result] = {}
    with _workers(n_workers(run)) as workers:
        pending: dict[Future[Result], Path] = {
            workers.executor.submit(_train_in_worker, training, run.silent(), threads): directory
            for directory, training in unique.items()
        }
        while pending:
            done, _ = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            _tell(workers.steps, run.listener)
            for future in done:
                directory = pending.pop(future)
                try:
                    results[directory] = future.result()
                except OutOfTime:
                    wait([other for other in pending if not other.cancel()])  # for their epochs
                    raise
                run.listener.finish(unique[directory].name, results[directory].seconds)
    return results


@dataclass(frozen=True)
class _Workers:
    """Processes that train, and the queue in which they tell how they get on."""

    executor: ProcessPoolExecutor
    steps: multiprocessing.Queue[tuple[str, Progress]]


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
    """Start workers, and let them go in the end: in an error without waiting for what is begun."""
    context = multiprocessing.get_context("spawn")
    steps: multiprocessing.Queue[tuple[str, Progress]] = context.Queue()
    arguments = (steps, os.getpid())
    executor = ProcessPoolExecutor(
        n, mp_context=context, initializer=_start_worker, initargs=arguments
    )
    try:
        yield _Workers(executor, steps)
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    executor.shutdown()


def _tell(steps: multiprocessing.Queue[tuple[str, Progress]], listener: Listener) -> None:
    while True:
        try:
            listener.step(*steps.get_nowait())
        except queue.Empty:
            return


_steps: multiprocessing.Queue[tuple[str, Progress]] | None = None


def _start_worker(steps: multiprocessing.Queue[tuple[str, Progress]], parent: int) -> None:
    global _steps
    _steps = steps
    prepare_worker(parent)


def prepare_worker(parent: int) -> None:
    """Let a worker not live longer than its parent."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _train_in_worker(training: Training, run: Run, threads: int) -> Result:
    assert _steps is not None
    torch.set_num_threads(threads)
    put = _steps.put
    return train(training, run, lambda step: put((training.name, step)))
