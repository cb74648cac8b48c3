"""The one training loop: baselines, joint and split networks, probes."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from recon_search import artefact, parallel
from recon_search.conflict.scores import ConflictScores
from recon_search.data.source import Feed
from recon_search.errors import TrainingError
from recon_search.methods.surgeon import Surgeon, create_surgeon
from recon_search.model.network import MultiTaskModel
from recon_search.recipe import TrainConfig
from recon_search.training.checkpoint import (
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
)
from recon_search.training.checks import check_divisible, check_finite, check_parameters
from recon_search.training.evaluation import evaluate
from recon_search.training.optimisation import create_optimizer, create_scheduler
from recon_search.training.step import Learner, Stepper

CHECK_EVERY = 25
"""Losses are read from the device, checked and reported every so many steps."""


@dataclass(frozen=True)
class Progress:
    """Where a training stands: for progress bars."""

    step: int
    n_steps: int
    loss: float
    images_per_second: float


Report = Callable[[Progress], None]
AfterEpoch = Callable[[dict[str, Any]], None]
_News = TypeVar("_News")


@dataclass
class _State:
    """What a checkpoint keeps beside the tensors of model, optimiser and scores."""

    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


def fit(
    model: MultiTaskModel,
    feed: Feed,
    config: TrainConfig,
    *,
    seed: int,
    directory: Path | None = None,
    scores: ConflictScores | None = None,
    report: Report | None = None,
    after_epoch: AfterEpoch | None = None,
) -> list[dict[str, Any]]:
    """Train a model in place, from its last checkpoint if `directory` holds one.

    Several processes (see `parallel`) call this with equal arguments and train one model together,
    each on its part of every batch. The first alone reads, writes, evaluates and reports, and its
    running statistics are kept.

    Args:
        model: on the device of the feed.
        feed: the data, of these tasks and perhaps others.
        config: optimiser, schedule, method; `measure_every` says how often conflicts are measured.
        seed: seed of the order of the batches and of dropout.
        directory: a checkpoint is written there after every epoch, and `metrics.jsonl`.
        scores: takes the Gramians of the measured steps.
        report: called every few steps.
        after_epoch: called with the record of every epoch, of those before an interruption too,
            once its checkpoint is written; what it raises ends the training.

    Returns:
        One record an epoch: `epoch`, `lr`, `train` (loss by task, of those that had one),
        `validation` (metrics by task), `seconds`.

    Raises:
        TrainingError: a loss is not finite, which names the task and the step, or a parameter.
        RecipeError: the batches cannot be divided evenly among the processes.
    """
    check_divisible(min(config.batch_size, feed.n_samples("train")))
    n_inputs = feed.n_steps("train", config.batch_size, shuffled=True)
    n_updates = -(-n_inputs // config.accumulate)
    surgeon = create_surgeon(model, config.method, config.options, low_memory=config.low_memory)
    optimizer = create_optimizer(model, config)
    if learned := list(surgeon.parameters()):
        optimizer.add_param_group({"params": learned, "weight_decay": 0.0})
    scheduler = create_scheduler(optimizer, config, n_updates)
    learner = Learner(model, feed.schema.select(model.tasks), feed, config)
    stepper = Stepper(
        learner, surgeon, optimizer, scheduler, scores, n_updates * config.epochs, seed
    )
    state = _State()
    checkpoint = None if directory is None else directory / "checkpoint.safetensors"
    torch.manual_seed(seed)
    if checkpoint is not None:
        saved = parallel.on_first(
            lambda: load_checkpoint(checkpoint) if checkpoint.is_file() else None
        )
        if saved is not None:
            state = _resume(saved, checkpoint, model, optimizer, surgeon, scores)
    parallel.synchronise(model)
    for record in state.history:
        _tell(after_epoch, record)

    for epoch in range(state.epoch, config.epochs):
        started = time.perf_counter()
        if not parallel.is_first():  # dropout of its own, which no checkpoint has to remember
            torch.manual_seed(int(artefact.digest([seed, epoch, parallel.rank()])[:12], 16))
        means = _run_epoch(stepper, epoch, n_updates, report)
        check_parameters(model, config, n_updates * (epoch + 1))
        surgeon.end_epoch()
        state.epoch = epoch + 1
        state.history.append(
            {
                "epoch": state.epoch,
                "lr": optimizer.param_groups[0]["lr"],
                "train": means,
                "validation": parallel.on_first(
                    lambda: evaluate(model, feed, "validation", config)
                ),
                "seconds": round(time.perf_counter() - started, 3),
            }
        )
        if checkpoint is not None and parallel.is_first():
            _save(checkpoint, model, optimizer, surgeon, scores, state)
        _tell(after_epoch, state.history[-1])
    surgeon.finish(model)
    return state.history


def _run_epoch(
    stepper: Stepper, epoch: int, n_updates: int, report: Report | None
) -> dict[str, float]:
    """Take the steps of an epoch; returns the mean loss of each task that had one."""
    learner, tasks = stepper.learner, stepper.learner.model.tasks
    size, started = learner.config.batch_size, time.perf_counter()
    learner.model.train()
    share = parallel.rank(), parallel.size()
    inputs = learner.feed.steps("train", size, (stepper.seed, epoch), share=share)
    recent: list[Tensor] = []
    totals = torch.zeros(len(tasks), device=learner.feed.device)
    stepper.n_present.clear()
    n_inputs = 0
    for update in range(n_updates):
        number = epoch * n_updates + update
        parts = list(itertools.islice(inputs, learner.config.accumulate))
        stepper.begin(number)
        recent += [stepper.add(part, 1 / len(parts)) for part in parts]
        n_inputs += len(parts)
        first = number - len(recent) // len(parts) + 1  # of the recent steps
        try:
            stepper.finish()
        except TrainingError:
            check_finite(torch.stack(recent), tasks, first)  # says more, if it is so
            raise
        if len(recent) >= CHECK_EVERY or update == n_updates - 1:
            window = parallel.mean([torch.stack(recent)])[0]  # (batches, T)
            check_finite(window, tasks, first)
            totals += window.sum(0)
            speed = n_inputs * size / (time.perf_counter() - started)
            now = Progress(number + 1, stepper.n_steps, float(window.mean()), speed)
            _tell(report, now)
            recent.clear()
    sums = dict(zip(tasks, totals.tolist(), strict=True))
    return {task: sums[task] / n for task in tasks if (n := stepper.n_present[task])}


def _tell(listener: Callable[[_News], None] | None, news: _News) -> None:
    """Call a listener, which the first process alone has; all hear of what it raises."""
    parallel.on_first(lambda: None if listener is None else listener(news))


def _save(
    path: Path,
    model: MultiTaskModel,
    optimizer: torch.optim.Optimizer,
    surgeon: Surgeon,
    scores: ConflictScores | None,
    state: _State,
) -> None:
    save_checkpoint(
        path,
        {
            "epoch": state.epoch,
            "history": state.history,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "method": surgeon.state_dict(),
            "scores": {} if scores is None else scores.tensors,
            "random": random_state(),
        },
    )
    lines = [json.dumps(record) for record in state.history]
    artefact.write_text(path.with_name("metrics.jsonl"), "\n".join(lines) + "\n")


def _resume(
    saved: dict[str, Any],
    path: Path,
    model: MultiTaskModel,
    optimizer: torch.optim.Optimizer,
    surgeon: Surgeon,
    scores: ConflictScores | None,
) -> _State:
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    surgeon.load_state_dict(saved["method"])
    if scores is not None:
        scores.load_state(saved["scores"], path)
    restore_random_state(saved["random"])
    return _State(saved["epoch"], saved["history"])
