"""One training, cached by content: baselines, joint, split and control networks, and probes."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from recon_search import identity, interruption, parallel
from recon_search.conflict.kept import MEASURED
from recon_search.conflict.scores import ConflictScores
from recon_search.data.transforms import SCALES
from recon_search.errors import ArtefactError, RecipeError, TrainingError
from recon_search.graph.split import Split
from recon_search.memory import is_exhausted
from recon_search.model.copies import change_copies, folded
from recon_search.model.facts import Facts, facts_of
from recon_search.model.files import load
from recon_search.model.network import MultiTaskModel, build_model
from recon_search.model.source import untrained
from recon_search.recipe import WHOLE, BackboneConfig, CopyConfig, Recipe, TrainConfig
from recon_search.runs.deadline import OutOfTime, in_time
from recon_search.runs.listener import News
from recon_search.runs.lock import held
from recon_search.runs.result import HISTORY, Result
from recon_search.runs.run import Run
from recon_search.tasks.task import Metrics, Task
from recon_search.training.branching import branch_state
from recon_search.training.checkpoint import (
    ADVICE,
    CHECKPOINT,
    load_checkpoint,
    n_epochs,
    save_checkpoint,
    write_history,
)
from recon_search.training.evaluation import evaluate
from recon_search.training.loop import AfterEpoch, Report, fit
from recon_search.training.stopping import Record, reported

logger = logging.getLogger(__name__)

STATE = "state.safetensors"
"""In the folder of a training that stopped early: its last checkpoint, for those that go on."""


@dataclass(frozen=True)
class Training:
    """What is trained: everything its result depends on, and a label to show.

    Attributes:
        tasks: names of those learned together; one for a single-task baseline.
        split: which layers are branched; None for none.
        train: how it is trained.
        backbone: the backbone, which a control may have widened.
        seed: of initialisation and batches.
        label: for progress bars; not part of the identity.
        test: look at the test data at the end; not part of the identity.
        start: the training whose weights this one starts from; None starts from scratch. With one
            that stops early (`until`) this one goes on, in a network that may be split further:
            optimiser, schedule and all (see `training.branching`).
        copies: what the copies of split layers are.
        until: the epoch after which it stops, for others to go on; None for the last.
    """

    tasks: tuple[str, ...]
    split: Split | None
    train: TrainConfig
    backbone: BackboneConfig
    seed: int
    label: str = field(default="", compare=False)
    test: bool = field(default=True, compare=False)
    start: Training | None = None
    copies: CopyConfig = WHOLE
    until: int | None = None

    @property
    def goes_on(self) -> bool:
        """Whether it goes on with a training that stopped early."""
        return self.start is not None and self.start.until is not None

    @property
    def name(self) -> str:
        """What to call it."""
        return f"{self.label}, seed {self.seed}"

    def identity(self, run: Run, *, with_seed: bool = True) -> str:
        """Return the digest of what determines its result."""
        return identity.of_training(
            run.recipe,
            fingerprint=run.schema.fingerprint,
            tasks=tuple(_name(task, run.recipe) for task in run.schema.select(self.tasks)),
            train=_settle(self.train, run),
            backbone=self.backbone,
            split=None if self.split is None else self.split.digest,
            seed=self.seed if with_seed else None,
            measured=MEASURED if self.train.measure_every else None,
            start=None if self.start is None else self.start.identity(run),
            copies=self.copies if self.split is not None and self.copies.kind != "full" else None,
            until=self.until,
        )

    def facts(self, run: Run) -> Facts:
        """What is known of its backbone, for what its tasks read."""
        tasks = run.schema.select(self.tasks)
        return facts_of(self.backbone, run.schema.shape, self.train.freeze, tasks=tasks)

    def directory(self, run: Run) -> Path:
        """The folder of this training, named by its identity."""
        return run.out / "trainings" / self.identity(run)


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
    (known.directory / CHECKPOINT).unlink(missing_ok=True)
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
            _branch_off(training, before, run)
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
    (directory / CHECKPOINT).unlink(missing_ok=True)
    return result


def fit_training(
    training: Training,
    run: Run,
    report: Report | None = None,
    after_epoch: AfterEpoch | None = None,
) -> tuple[MultiTaskModel, ConflictScores | None, list[dict[str, Any]]]:
    """Build a training's model and fit it: what all processes of a group do together.

    The training that it starts from is done; of one that goes on the folder holds a checkpoint.

    Returns:
        The model, its conflict scores if they were measured, and the history (see `fit`).
    """
    model = _build(training, run).to(run.device)
    if training.start is not None and not training.goes_on:
        _start_from(model, load(training.start.directory(run) / "model"))
    change_copies(model, training.copies, training.seed)
    scores = empty_scores(training, run) if training.train.measure_every else None
    try:
        with contextlib.closing(run.feed) as feed:
            history = fit(
                model,
                feed,
                _settle(training.train, run),
                seed=training.seed,
                directory=training.directory(run),
                scores=scores,
                report=report,
                after_epoch=after_epoch,
                until=training.until,
            )
    except (ValueError, RuntimeError, MemoryError) as error:
        config = training.train
        if "more than 1 value per channel" in str(error):
            raise RecipeError(
                f"Batches of {config.batch_size} ({parallel.size()} processes) are too small for a "
                f"normalisation of {training.backbone.name}. Raise train.batch_size."
            ) from None
        if "without overflow" in str(error):
            raise RecipeError(
                "Every number of `[train]` must fit float32, got lr = "
                f"{config.lr:g}, weight_decay = {config.weight_decay:g}, decay_rate = "
                f"{config.decay_rate:g}. Lower the largest."
            ) from None
        if is_exhausted(error):
            raise TrainingError(
                f"The memory of {run.device} must hold a step of {training.name}, it does not "
                f"(train.batch_size {config.batch_size}, method {config.method}). Lower "
                "train.batch_size and raise train.accumulate by the same factor, or set "
                "train.grad_checkpointing or train.low_memory."
            ) from None
        raise
    return model, scores, history


def train_told(training: Training, run: Run, tell: Callable[[News], None]) -> Result:
    """Run a training (see `train`) and tell how it goes: of what is trained now, not of before."""
    known = _n_recorded(training.directory(run))

    def after_epoch(record: Record) -> None:
        if record["epoch"] > known:
            tell(record)

    tell("start")
    return train(training, run, tell, after_epoch)


def _n_recorded(directory: Path) -> int:
    """Number of epochs that a training has trained before, by its records."""
    if not (Result.is_in(directory) or (directory / CHECKPOINT).is_file()):
        return 0  # it begins anew, whatever else is left there
    try:
        return (directory / HISTORY).read_bytes().count(b"\n")
    except OSError:
        return 0


@torch.no_grad()
def count_flops(model: MultiTaskModel, images: torch.Tensor) -> int:
    """Count the floating point operations of a forward pass for all tasks, by torch's counter."""
    model.eval()
    with FlopCounterMode(display=False) as counter:
        model(images)
    return int(counter.get_total_flops())


def _test(
    training: Training, model: MultiTaskModel, run: Run, history: Sequence[Record]
) -> Metrics:
    if training.train.report_epochs > 1:
        return reported(history, training.train, "test")
    with contextlib.closing(run.feed) as feed:
        return evaluate(model, feed, "test", training.train)


def _branch_off(training: Training, stopped: Result, run: Run) -> None:
    """Write the checkpoint with which a training goes on where another has stopped.

    Raises:
        ArtefactError: what the other has left is missing or damaged.
        RecipeError: the method cannot go on in another network.
    """
    assert training.start is not None
    path = stopped.directory / STATE
    try:
        state = load_checkpoint(path)
    except ArtefactError as error:
        reason = str(error).removesuffix(ADVICE)
        raise ArtefactError(f"{reason}Delete {stopped.directory} to train it anew.") from None
    before, after = (
        _build(replace(each, backbone=untrained(each.backbone)), run)
        for each in (training.start, training)
    )
    config = _settle(training.train, run)
    scores = empty_scores(training, run).tensors if config.measure_every else None
    branched = branch_state(state, before, after, config, scores)
    save_checkpoint(training.directory(run) / CHECKPOINT, branched)


def _build(training: Training, run: Run) -> MultiTaskModel:
    return build_model(
        training.backbone,
        run.recipe.heads,
        run.schema.select(training.tasks),
        shape=run.schema.shape,
        split=training.split,
        init=run.recipe.split.init,
        seed=training.seed,
        frozen=training.train.freeze,
    )


def _start_from(model: MultiTaskModel, trained: MultiTaskModel) -> None:
    """Give every task's path through `model` the weights of a trained model of the same tasks."""
    for task in model.tasks:
        model.backbone.load_task_state_dict(task, trained.backbone.task_state_dict(task))
    model.heads.load_state_dict(trained.heads.state_dict())


def _name(task: Task, recipe: Recipe) -> dict[str, Any]:
    """What a task is, and where its labels are if the recipe says so."""
    own = recipe.tasks.get(task.name)
    return (
        task.spec() if own is None or own.target is None else {**task.spec(), "target": own.target}
    )


def _settle(config: TrainConfig, run: Run) -> TrainConfig:
    """Drop `train.options` where another method than `train.method` trains: it has its defaults."""
    if config.method == run.recipe.train.method:
        return config
    return config.model_copy(update={"options": {}})


def empty_scores(training: Training, run: Run) -> ConflictScores:
    """Return scores of a training's layers and tasks in which nothing was counted yet."""
    facts = training.facts(run)
    infos = facts.analysis.infos
    metadata: dict[str, Any] = {
        "backbone": facts.identity,
        "layer_infos": [
            {
                "name": info.name,
                "type": info.type,
                "n_parameters": info.n_parameters,
                "is_norm": info.is_norm,
            }
            for info in infos
        ],
        "recipe": training.identity(run, with_seed=False),
        "seeds": [training.seed],
    }
    if training.train.freeze:  # a budget is of the whole backbone
        metadata["n_frozen"] = facts.n_frozen
    names = [info.name for info in infos]
    return ConflictScores(names, training.tasks, metadata, replicated=True)


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
