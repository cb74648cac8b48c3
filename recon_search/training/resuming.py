"""How a training is put aside and taken up again: what its checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from recon_search.errors import ArtefactError
from recon_search.recipe import TrainConfig
from recon_search.training.checkpoint import (
    ADVICE,
    check_kinds,
    check_progress,
    random_state,
    refusal,
    restore_random_state,
    save_checkpoint,
    write_history,
)
from recon_search.training.step import Stepper


@dataclass
class State:
    """What a checkpoint keeps beside the tensors of model, optimiser and scores.

    Attributes:
        epoch: epochs that are over.
        history: their records.
        best: the best epoch's tensors of the model, where that epoch is to be kept.
        begun: of an epoch that a signal has cut short.
    """

    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Tensor] | None = None
    begun: Begun | None = None


@dataclass
class Begun:
    """How far an epoch has come.

    Attributes:
        update: steps that were taken.
        totals: (T,), sums of the losses of batches, checked.
        recent: (n, T), losses of the last n batches, not yet checked.
        n_present: by task, the batches in which it had a loss.
        n_skipped: steps that were left out.
        seconds: that it took.
    """

    update: int
    totals: Tensor
    recent: Tensor
    n_present: dict[str, int]
    n_skipped: int
    seconds: float


def save(path: Path, stepper: Stepper, state: State) -> None:
    """Write the checkpoint, and the history beside it."""
    scores, scaler, average = stepper.scores, stepper.scaler, stepper.average
    more: dict[str, Any] = {} if scaler is None else {"scaler": scaler.state_dict()}
    if average is not None:
        more["average"] = average.state_dict()
    if state.best is not None:
        more["best"] = state.best
    if state.begun is not None:
        more["begun"] = vars(state.begun)
    save_checkpoint(
        path,
        {
            "epoch": state.epoch,
            "history": state.history,
            "model": stepper.learner.model.state_dict(),
            "optimizer": stepper.optimizer.state_dict(),
            "method": stepper.surgeon.state_dict(),
            "scores": {} if scores is None else scores.state(),
            "random": random_state(),
            **more,
        },
    )
    write_history(path.parent, state.history)


def resume(saved: dict[str, Any], path: Path, stepper: Stepper, config: TrainConfig) -> State:
    """Put back all but the average, which is made of the model as it goes on.

    Raises:
        ArtefactError: it is not the state of this training.
    """
    try:
        begun = Begun(**saved["begun"]) if "begun" in saved else None
        state = State(saved["epoch"], saved["history"], saved.get("best"), begun)
        check_progress(state.epoch, state.history, config, is_begun=begun is not None)
        model = stepper.learner.model
        for tensors in (saved["model"], state.best or {}):
            check_kinds(tensors, model.state_dict())
        model.load_state_dict(saved["model"])
        stepper.optimizer.load_state_dict(saved["optimizer"])
        stepper.surgeon.load_state_dict(saved["method"])
        if stepper.scores is not None:
            stepper.scores.load_state(saved["scores"], path)
        if stepper.scaler is not None:
            stepper.scaler.load_state_dict(saved["scaler"])
        restore_random_state(saved["random"])
    except ArtefactError as error:
        raise ArtefactError(f"{error} {ADVICE}") from None
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise refusal(path, error) from None
    return state
