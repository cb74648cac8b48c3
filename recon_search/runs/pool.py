"""Many trainings: one process a core on the CPU, else, and under `torchrun`, one after another."""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
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
        try:
            results = _one_by_one(unique, run) if alone else _in_processes(unique, run, workers)
        except OutOfTime:
            raise OutOfTime(_describe(list(unique), title)) from None
    return [results[training.directory(run)] for training in trainings]


def _describe(directories: Sequence[Path], title: str) -> str:
    """Say what is left."""
    left = [directory for directory in directories if not Result.is_in(directory)]
    begun = sum((directory / "checkpoint.safetensors").is_file() for directory in left)
    n = len(directories)
    return f"{title}: {n - len(left)} of {n} trainings are done, {begun} more begun"


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


def _in_processes(unique: dict[Path, Training], run: Run, workers: int) -> dict[Path, Result]:
    context = multiprocessing.get_context("spawn")
    steps: multiprocessing.Queue[tuple[str, Progress]] = context.Queue()
    threads = max(1, torch.get_num_threads() // workers)
    results: dict[Path, Result] = {}
    with ProcessPoolExecutor(
        workers,
        mp_context=context,
        initializer=_start_worker,
        initargs=(steps, os.getpid(), threads),
    ) as pool:
        pending: dict[Future[Result], Path] = {
            pool.submit(_train_in_worker, training, run.silent()): directory
            for directory, training in unique.items()
        }
        try:
            while pending:
                done, _ = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                _tell(steps, run.listener)
                for future in done:
                    directory = pending.pop(future)
                    results[directory] = future.result()
                    run.listener.finish(unique[directory].name, results[directory].seconds)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def _tell(steps: multiprocessing.Queue[tuple[str, Progress]], listener: Listener) -> None:
    while True:
        try:
            listener.step(*steps.get_nowait())
        except queue.Empty:
            return


_steps: multiprocessing.Queue[tuple[str, Progress]] | None = None


def _start_worker(
    steps: multiprocessing.Queue[tuple[str, Progress]], parent: int, threads: int
) -> None:
    global _steps
    _steps = steps
    prepare_worker(parent, threads)


def prepare_worker(parent: int, threads: int) -> None:
    """Set a worker's threads, and let it not live longer than its parent."""
    torch.set_num_threads(threads)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _train_in_worker(training: Training, run: Run) -> Result:
    assert _steps is not None
    put = _steps.put
    return train(training, run, lambda step: put((training.name, step)))
