"""What must hold for a training to begin and to go on."""

from __future__ import annotations

import torch
from torch import Tensor

from recon_search import parallel
from recon_search.errors import RecipeError, TrainingError
from recon_search.model.network import MultiTaskModel
from recon_search.recipe import TrainConfig


def check_divisible(batch_size: int) -> None:
    """Make sure that every process gets as many images of a batch as the others.

    Raises:
        RecipeError: the batch cannot be divided so.
    """
    if batch_size % parallel.size():
        raise RecipeError(
            f"`train.batch_size` must be a multiple of the number of processes, got batches of "
            f"{batch_size} images for {parallel.size()} processes. Change it or --nproc-per-node."
        )


def check_finite(losses: Tensor, tasks: tuple[str, ...], first_step: int) -> None:
    """Find the first loss that is not finite.

    Args:
        losses: (steps, T).
        tasks: the T tasks.
        first_step: number of the first of the steps.

    Raises:
        TrainingError: names the task and the step.
    """
    finite = losses.isfinite()  # (steps, T)
    if bool(finite.all()):
        return
    row, column = (~finite).nonzero()[0].tolist()
    raise TrainingError(
        f"Every loss must be finite, got {float(losses[row, column])} for task '{tasks[column]}' "
        f"at step {first_step + row}. Lower train.lr, add train.clip_grad, or look at the data."
    )


def check_parameters(model: MultiTaskModel, config: TrainConfig, n_updates: int) -> None:
    """Find what the last updates of an epoch have broken, whose losses nobody has seen.

    Raises:
        TrainingError: names a parameter that is not finite.
    """
    finite = torch.stack([parameter.isfinite().all() for parameter in model.parameters()])
    if not bool(finite.all()):
        name = next(n for n, p in model.named_parameters() if not bool(p.isfinite().all()))
        raise TrainingError(
            f"Every parameter must stay finite, '{name}' did not by update {n_updates}. Lower "
            f"train.lr ({config.lr:g}), or add train.clip_grad."
        )
