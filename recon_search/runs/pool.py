"""Many trainings: one process a core on the CPU, else, and under `torchrun`, one after another."""

from __future__ import annotations

import functools
import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from recon_search.recipe import Recipe
from recon_search.runs.training import Training, train
from recon_search import parallel
from recon_search.training.loop import Progress
from recon_search.views.display import Display


def train_all(
    trainings: Sequence[Training],
    recipe: Recipe,
    out: Path,
    device: torch.device,
    *,
    title: str,
    console: Console,
    workers: int | None = None,
) -> list[dict[str, Any]]:
    """Run trainings and return their results in order; equal ones run once.

    On the CPU the cores are divided among the workers.

    Args:
        trainings: what to train.
        recipe: the run's recipe.
        out: the run directory.
        device: where to train.
        title: what the progress bar says.
        console: where the progress bar goes.
        workers: as `n_workers` takes them.
    """
    unique = {training.directory(recipe, out): training for training in trainings}
    workers = min(n_workers(workers, device), len(unique))
    with Display(title, len(unique), console) as display:
        if workers <= 1:
            results = _one_by_one(unique, recipe, out, device, display)
        else:
            results = _in_processes(unique, recipe, out, device, display, workers)
    return [
        {**results[training.directory(recipe, out)], "label": training.label}
        for training in trainings
    ]


def n_workers(workers: int | None, device: torch.device) -> int:
    """Trainings at once: what is asked for, or one a core on the CPU.

    A GPU is not shared, and a group of processes works on one training at a time.
    """
    if device.type != "cpu" or parallel.size() > 1:
        return 1
    return workers or os.cpu_count() or 1


def _one_by_one(
    unique: dict[Path, Training], recipe: Recipe, out: Path, device: torch.device, display: Display
) -> dict[Path, dict[str, Any]]:
    results = {}
    for directory, training in unique.items():
        show = functools.partial(display.step, _name(training))
        results[directory] = train(training, recipe, out, device, show)
        display.finish(_name(training), results[directory]["seconds"])
    return results


def _in_processes(
    unique: dict[Path, Training],
    recipe: Recipe,
    out: Path,
    device: torch.device,
    display: Display,
    workers: int,
) -> dict[Path, dict[str, Any]]:
    context = multiprocessing.get_context("spawn")
    steps: multiprocessing.Queue[tuple[str, Progress]] = context.Queue()
    threads = max(1, torch.get_num_threads() // workers)
    results: dict[Path, dict[str, Any]] = {}
    with ProcessPoolExecutor(
        workers,
        mp_context=context,
        initializer=_start_worker,
        initargs=(steps, os.getpid(), threads),
    ) as pool:
        pending: dict[Future[dict[str, Any]], Path] = {
            pool.submit(_train_in_worker, training, recipe, out, device): directory
            for directory, training in unique.items()
        }
        try:
            while pending:
                done, _ = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                _show(steps, display)
                for future in done:
                    directory = pending.pop(future)
                    results[directory] = future.result()
                    display.finish(_name(unique[directory]), results[directory]["seconds"])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def _show(steps: multiprocessing.Queue[tuple[str, Progress]], display: Display) -> None:
    while True:
        try:
            display.step(*steps.get_nowait())
        except queue.Empty:
            return


def _name(training: Training) -> str:
    return f"{training.label}, seed {training.seed}"


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


def _train_in_worker(
    training: Training, recipe: Recipe, out: Path, device: torch.device
) -> dict[str, Any]:
    assert _steps is not None
    put = _steps.put
    name = _name(training)
    return train(training, recipe, out, device, lambda step: put((name, step)))
