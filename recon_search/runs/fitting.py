"""The network of a training: built, begun where another has ended, and fitted."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from recon_search import parallel
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import ArtefactError, RecipeError, TrainingError
from recon_search.memory import is_exhausted
from recon_search.model.copies import change_copies
from recon_search.model.files import load
from recon_search.model.network import MultiTaskModel, build_model
from recon_search.model.source import untrained
from recon_search.recipe import TrainConfig
from recon_search.runs.result import Result
from recon_search.runs.run import Run
from recon_search.runs.training import Training, empty_scores, settle
from recon_search.training.branching import branch_state
from recon_search.training.checkpoint import (
    ADVICE,
    CHECKPOINT,
    load_checkpoint,
    save_checkpoint,
)
from recon_search.training.loop import AfterEpoch, Report, fit

STATE = "state.safetensors"
"""In the folder of a training that stopped early: its last checkpoint, for those that go on."""


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
                settle(training.train, run),
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
                f"(train.batch_size {config.batch_size}, method {config.method}). "
                f"{_how_to_save(config, is_shared=(run.workers or 1) > 1)}"
            ) from None
        raise
    return model, scores, history


def _how_to_save(config: TrainConfig, *, is_shared: bool) -> str:
    """Say by what a step takes less memory, of that which goes together and is not set yet.

    Args:
        config: of the training.
        is_shared: whether other workers' trainings share the device.
    """
    size, half = config.batch_size, config.batch_size // 2
    ways = ["lower --workers"] if is_shared else []
    if config.low_memory:  # a step is one batch
        ways += ["lower train.batch_size"] if half else []
    elif half:
        way = "lower train.batch_size and raise train.accumulate by the same factor"
        example = f"--set train.batch_size={half} --set train.accumulate={2 * config.accumulate}"
        ways.append(way if size % 2 else f"{way} ({example})")
    if not (config.low_memory or config.grad_checkpointing):
        may_go_anew = config.accumulate == 1 and config.precision != "float16"
        ways.append("set train.grad_checkpointing" + " or train.low_memory" * may_go_anew)
    text = ", or ".join([*ways, "make images or the network smaller"])
    return f"{text[0].upper()}{text[1:]}."


def branch_off(training: Training, stopped: Result, run: Run) -> None:
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
    config = settle(training.train, run)
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


@torch.no_grad()
def count_flops(model: MultiTaskModel, images: torch.Tensor) -> int:
    """Count the floating point operations of a forward pass for all tasks, by torch's counter."""
    model.eval()
    with FlopCounterMode(display=False) as counter:
        model(images)
    return int(counter.get_total_flops())
