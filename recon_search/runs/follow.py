"""Under `torchrun` the first process runs a command; the others follow it through its trainings."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

import torch

from recon_search import parallel
from recon_search.errors import BackboneError, ProcessError, RecipeError, SplitError, TrainingError
from recon_search.runs.fitting import fit_training
from recon_search.runs.run import Run
from recon_search.runs.training import Training

SHARED = (BackboneError, RecipeError, SplitError, TrainingError, parallel.LeftError)
"""What a training raises in all processes alike; after anything else they are out of step."""


def in_step(command: Callable[[], None], device: torch.device) -> None:
    """Let the first process of a group run a command, and the others train along with it.

    Call it inside `parallel.group`.

    Only the first process reads recipes, asks Optuna, writes and prints: a stage that trains by
    `runs.trainer.train` need not know of the others. When it raises, its process must end with an
    error, for `torchrun` to end the others.

    Args:
        command: what the first process does.
        device: where this process trains.
    """
    if parallel.is_first():
        command()
        parallel.agree(None)
        return
    while (announced := _announced()) is not None:
        training, run = announced
        with contextlib.suppress(*SHARED):
            fit_training(training, replace(run, device=device))


def _announced() -> tuple[Training, Run] | None:
    """Wait for what `runs.trainer.train` of the first process begins, or for the end."""
    try:
        return parallel.agree(None)
    except ProcessError:
        raise SystemExit(1) from None  # the first process has failed and says why
