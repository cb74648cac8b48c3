"""The one training loop: baselines, joint and split networks, probes."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from recon_search import artefact, interruption, parallel
from recon_search.conflict.scores import ConflictScores
from recon_search.conflict.sketch import Sketch
from recon_search.data.source import Feed
from recon_search.errors import TrainingError
from recon_search.methods.surgeon import create_surgeon
from recon_search.model.network import MultiTaskModel
from recon_search.recipe import TrainConfig
from recon_search.training.averaging import create_average
from recon_search.training.checkpoint import (
    CHECKPOINT,
    load_checkpoint,
    refusal,
    write_history,
)
from recon_search.training.checks import check_divisible, check_finite, check_parameters
from recon_search.training.evaluation import evaluate
from recon_search.training.optimisation import base_lr, create_optimizer, create_scheduler
from recon_search.training.resuming import Begun, State, resume, save
from recon_search.training.scaler import create_scaler
from recon_search.training.sparse import create_sparse
from recon_search.training.spoiled import Spoiled
from recon_search.training.step import Learner, Stepper
from recon_search.training.stopping import is_over, judge, snapshot

CHECK_EVERY = 25
"""Losses are read from the device, checked and reported every so many steps."""


@dataclass(frozen=True)
class Progress:
    """Where a training stands: for progress bars.

    Attributes:
        step: steps that were taken, of all epochs.
        n_steps: steps there are to be.
        loss: mean over tasks and over the steps since the last report.
        images_per_second: in this epoch.
        epoch: the one under way, counted from 1.
        n_epochs: epochs there are to be, at most.
        losses: by task, the mean over the same steps; of tasks that had one.
    """

    step: int
    n_steps: int
    loss: float
    images_per_second: float
    epoch: int = 0
    n_epochs: int = 0
    losses: dict[str, float] = field(default_factory=dict)


Report = Callable[[Progress], None]
AfterEpoch = Callable[[dict[str, Any]], None]
_News = TypeVar("_News")


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
    until: int | None = None,
) -> list[dict[str, Any]]:
    """Train a model in place, from its last checkpoint if `directory` holds one.

    Several processes (see `parallel`) call this with equal arguments and train one model together,
    each on its part of every batch. The first alone reads, writes, evaluates and reports, and its
    running statistics are kept.

    Of tasks with data of their own a step is a batch of each: forward passes in turn, each of its
    task's path alone, then one update. Norms that keep running statistics see the batches in that
    order, as so many steps of a network that is not told tasks apart.

    On the CPU equal arguments give equal bits, also in several pieces; another number of threads or
    another build of torch may round otherwise. On a GPU they need not: sums by atomic additions
    (the backward passes of interpolation, of embeddings, of some poolings) come in any order, cuDNN
    chooses convolutions by timing them where `torch.backends.cudnn.benchmark` is set, and another
    card has other kernels. Which layers conflict most is stable all the same where the scores'
    reliability says so.

    With `ema` the average of the weights is what is evaluated and what the model holds in the end;
    with `patience` or `select = "best"` it holds those of the best epoch (see `stopping`).

    Args:
        model: on the device of the feed.
        feed: the data, of these tasks and perhaps others.
        config: optimiser, schedule, method; `measure_every` says how often conflicts are measured.
        seed: seed of the order of the batches and of dropout.
        directory: a checkpoint is written there after every epoch, and after the step in which a
            signal came (see `interruption`); it holds the history, and `metrics.jsonl` is a copy.
        scores: takes the Gramians of the measured steps.
        report: called every few steps, and after the last of an epoch.
        after_epoch: called with the record of every epoch, of those before an interruption too,
            once its checkpoint is written; what it raises ends the training.
        until: the epoch after which it stops, to go on elsewhere: the schedule is that of all
            epochs, progress and the scores' windows are of those trained. None for the last.

    Returns:
        One record an epoch: `epoch`, `lr`, `train` (loss by task, of those that had one),
        `validation` (metrics by task), `seconds`; of the last `report_epochs`, if several, also
        `test`, which nothing is chosen by; with `patience` or `select = "best"`
        also `relative_loss` and `best`, whether it is better than all before it (see `stopping`);
        with `non_finite = "skip"` also `skipped`, the number of steps that were, if any was.

    Raises:
        TrainingError: a loss is not finite, which names the task and the step, or a parameter.
        RecipeError: the batches cannot be divided evenly among the processes.
        Interrupted: a signal came.
    """
    feed = feed.select(model.tasks)
    for length in feed.lengths("train"):
        check_divisible(min(config.batch_size, length))
    n_batches = feed.n_steps("train", config.batch_size, shuffled=True)
    n_updates = -(-n_batches // config.accumulate)
    if config.grad_checkpointing:
        model.set_grad_checkpointing()
    sketch = Sketch(config.measure_sketch, seed) if config.measure_sketch else None
    surgeon = create_surgeon(
        model, config.method, config.options, low_memory=config.low_memory, sketch=sketch
    )
    optimizer = create_optimizer(model, config, list(surgeon.parameters()))
    scheduler = create_scheduler(optimizer, config, n_updates)
    learner = Learner(model, feed.schema.select(model.tasks), feed, config)
    last = config.epochs if until is None else until
    stepper = Stepper(learner, surgeon, optimizer, scheduler, scores, n_updates * last, seed)
    stepper.sketch = sketch
    stepper.scaler = create_scaler(feed.device, config)
    if config.non_finite == "skip":
        stepper.spoiled = Spoiled(model)
    state = State()
    checkpoint = None if directory is None else directory / CHECKPOINT
    torch.manual_seed(seed)
    saved = None
    if checkpoint is not None:
        saved = parallel.on_first(
            lambda: load_checkpoint(checkpoint) if os.path.lexists(checkpoint) else None
        )
        if saved is not None:
            state = resume(saved, checkpoint, stepper, config)
    parallel.synchronise(model)
    average = stepper.average = create_average(model, config)
    if average is not None and saved is not None:
        try:
            average.load_state_dict(saved["average"])
        except (KeyError, RuntimeError, TypeError) as error:
            assert checkpoint is not None
            raise refusal(checkpoint, error) from None
    if saved is not None and checkpoint is not None and parallel.is_first():
        write_history(checkpoint.parent, state.history)
    for record in state.history:
        _tell(after_epoch, record)
    stepper.sparse = create_sparse(model, config, seed)
    try:
        with interruption.in_order():
            _go_on(stepper, state, checkpoint, n_updates, last, report, after_epoch)
    finally:
        if stepper.sparse is not None:
            stepper.sparse.close()
    if state.best is not None:
        model.load_state_dict(state.best)
    elif average is not None:
        model.load_state_dict(average.state_dict())
    surgeon.finish(model)
    if config.grad_checkpointing:
        model.set_grad_checkpointing(enable=False)
    return state.history


def _go_on(
    stepper: Stepper,
    state: State,
    checkpoint: Path | None,
    n_updates: int,
    last: int,
    report: Report | None,
    after_epoch: AfterEpoch | None,
) -> None:
    """Train the epochs that are left, up to the last."""
    model, feed, config = stepper.learner.model, stepper.learner.feed, stepper.learner.config
    seed, average = stepper.seed, stepper.average
    evaluated = model if average is None else average.model
    while state.epoch < last and not is_over(state.history, config):
        interruption.check()
        epoch, started = state.epoch, time.perf_counter()
        before = 0.0 if state.begun is None else state.begun.seconds
        if not parallel.is_first():  # dropout of its own, which no checkpoint has to remember
            torch.manual_seed(int(artefact.digest([seed, epoch, parallel.rank()])[:12], 16))
        means, state.begun = _run_epoch(stepper, epoch, n_updates, report, state.begun)
        if state.begun is not None:
            state.begun.seconds = before + time.perf_counter() - started
            check_parameters(model, config, n_updates * epoch + state.begun.update)
            if checkpoint is not None and parallel.is_first():
                save(checkpoint, stepper, state)
            interruption.check()
        check_parameters(model, config, n_updates * (epoch + 1))
        stepper.surgeon.end_epoch()
        if average is not None:
            average.end_epoch()
        validation = parallel.on_first(lambda: evaluate(evaluated, feed, "validation", config))
        is_reported = 1 < config.report_epochs > config.epochs - 1 - epoch
        test = (
            parallel.on_first(lambda: evaluate(evaluated, feed, "test", config))
            if is_reported
            else None
        )
        is_judged = config.keeps_best or config.patience > 0
        judged = judge(validation, state.history) if is_judged else {}
        if config.keeps_best and judged["best"]:
            state.best = snapshot(evaluated)
        state.epoch = epoch + 1
        state.history.append(
            {
                "epoch": state.epoch,
                "lr": base_lr(stepper.optimizer),
                "train": means,
                "validation": validation,
                **({} if test is None else {"test": test}),
                **judged,
                **({} if stepper.spoiled is None else stepper.spoiled.record()),
                "seconds": round(before + time.perf_counter() - started, 3),
            }
        )
        if checkpoint is not None and parallel.is_first():
            save(checkpoint, stepper, state)
        _tell(after_epoch, state.history[-1])


def _run_epoch(
    stepper: Stepper, epoch: int, n_updates: int, report: Report | None, begun: Begun | None
) -> tuple[dict[str, float], Begun | None]:
    """Take the steps of an epoch, or those that are left of one that a signal has cut short.

    Returns:
        The mean loss of each task that had one; and how far it has come if a signal cuts it short.
    """
    learner, tasks = stepper.learner, stepper.learner.model.tasks
    size, started = learner.config.batch_size, time.perf_counter()
    learner.model.train()
    share = parallel.rank(), parallel.size()
    inputs = learner.feed.steps("train", size, (stepper.seed, epoch), share=share)
    recent: list[Tensor] = []
    totals = torch.zeros(len(tasks), device=learner.feed.device)
    stepper.n_present.clear()
    if stepper.spoiled is not None:
        stepper.spoiled.n_skipped = 0 if begun is None else begun.n_skipped
    n_inputs, taken = 0, 0
    if begun is not None:
        taken = begun.update
        recent = list(begun.recent.to(totals.device))
        totals += begun.totals.to(totals.device)
        stepper.n_present.update(begun.n_present)
        for _ in itertools.islice(inputs, taken * learner.config.accumulate):
            pass
    told = Counter({task: n - len(recent) for task, n in stepper.n_present.items()})
    for update in range(taken, n_updates):
        number = epoch * n_updates + update
        parts = list(itertools.islice(inputs, learner.config.accumulate))
        stepper.begin(number)
        recent += [stepper.add(part, 1 / len(parts)) for part in parts]
        n_inputs += sum(len(batch.inputs) for part in parts for batch in part) * parallel.size()
        first = number - len(recent) // len(parts) + 1  # of the recent steps
        try:
            stepper.finish()
        except TrainingError:
            if stepper.spoiled is None:
                check_finite(torch.stack(recent), tasks, first)  # says more, if it is so
            raise
        if len(recent) >= CHECK_EVERY or update == n_updates - 1:
            window = parallel.mean([torch.stack(recent)])[0]  # (batches, T)
            if stepper.spoiled is None:
                check_finite(window, tasks, first)
            else:  # a task had no loss where it was not finite
                window, lost = window.nan_to_num(0.0, 0.0, 0.0), (~window.isfinite()).sum(0)
                stepper.n_present.subtract(dict(zip(tasks, lost.tolist(), strict=True)))
            if stepper.scaler is not None:
                stepper.scaler.check(number + 1)
            sums = window.sum(0)
            totals += sums
            speed = n_inputs / (time.perf_counter() - started)
            found = dict(zip(tasks, sums.tolist(), strict=True))
            now = Progress(
                number + 1,
                stepper.n_steps,
                sum(found.values()) / window.numel(),
                speed,
                epoch + 1,
                learner.config.epochs,
                {
                    task: found[task] / n
                    for task in tasks
                    if (n := stepper.n_present[task] - told[task]) > 0
                },
            )
            _tell(report, now)
            told = Counter(stepper.n_present)
            recent.clear()
        if interruption.is_asked():
            if parallel.size() > 1:  # each hears of it at another step: the last epoch counts
                interruption.check()
            skipped = 0 if stepper.spoiled is None else stepper.spoiled.n_skipped
            kept = torch.stack(recent) if recent else totals.new_zeros(0, len(tasks))
            if stepper.spoiled is None:
                check_finite(kept, tasks, first)
            return {}, Begun(update + 1, totals, kept, dict(stepper.n_present), skipped, 0.0)
    means = dict(zip(tasks, totals.tolist(), strict=True))
    return {task: means[task] / n for task in tasks if (n := stepper.n_present[task])}, None


def _tell(listener: Callable[[_News], None] | None, news: _News) -> None:
    """Call a listener, which the first process alone has; all hear of what it raises."""
    parallel.on_first(lambda: None if listener is None else listener(news))
