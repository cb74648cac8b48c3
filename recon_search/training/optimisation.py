"""timm's optimisers and schedules: made, and tried before a training relies on them."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from timm.scheduler import create_scheduler_v2
from torch import nn, optim

from recon_search.errors import RecipeError, in_one_line, nearest
from recon_search.recipe import TrainConfig
from recon_search.training.checkpoint import load_checkpoint, save_checkpoint

BATCHED = frozenset(
    [optim.SGD, optim.Adam, optim.AdamW, optim.Adamax, optim.Adagrad, optim.Adadelta, optim.RMSprop]
)
"""Optimisers that take all tensors in one call, on the CPU too: the same bits, less Python."""


def create_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Create the optimiser of a model's parameters; norms and biases have no weight decay.

    Nesterov's momentum is the default of some, and of the momentum 0 it is none: plain steps then.
    """
    return _create(model, config.optimizer, config.lr, config.momentum, config.weight_decay)


def create_scheduler(optimizer: torch.optim.Optimizer, config: TrainConfig, n_updates: int) -> Any:
    """Create the learning rate schedule, stepped after every update.

    Args:
        optimizer: whose learning rate it sets.
        config: names the schedule, its epochs and its warm-up.
        n_updates: of an epoch.
    """
    is_constant = config.scheduler == "constant"
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="step" if is_constant else config.scheduler,
        num_epochs=config.epochs,
        decay_epochs=max(1, config.epochs // 3),
        decay_milestones=config.milestones,
        decay_rate=1.0 if is_constant else config.decay_rate,
        warmup_epochs=config.warmup_epochs,
        warmup_lr=config.lr / 100,
        step_on_epochs=False,
        updates_per_epoch=n_updates,
    )
    return scheduler


def check_optimizer(name: str, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
    """Try an optimiser on a tiny network on the CPU: two steps with a checkpoint between them.

    Raises:
        RecipeError: timm does not know it, or it cannot be used here: it needs a package, a GPU or
            second derivatives, or keeps what no checkpoint can.
    """
    if name not in (known := list_optimizers()):
        raise RecipeError(
            f"`train.optimizer` must be one of timm's, got '{name}'.{nearest(name, known)}"
        )
    if trouble := _trouble(name, momentum, weight_decay):
        raise RecipeError(
            f"`train.optimizer` must work on tensors of the CPU and first derivatives, '{name}' "
            f"with momentum {momentum:g} does not: {trouble}."
            f"{nearest(_plain(name), usable_optimizers()) or ' Take adamw.'}"
        )


@functools.cache
def usable_optimizers() -> tuple[str, ...]:
    """Names of timm's optimisers that `check_optimizer` lets pass; all are tried once."""
    return tuple(name for name in list_optimizers() if not _trouble(name, 0.9, 0.0))


def _create(
    model: nn.Module, name: str, lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    info = get_optimizer_info(name)
    is_plain = momentum == 0 and info.has_momentum and (info.defaults or {}).get("nesterov")
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model,
        name,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        **({"nesterov": False} if is_plain else {}),
    )
    if type(optimizer) in BATCHED:
        for group in optimizer.param_groups:
            group["foreach"] = True
    return optimizer


def _trouble(name: str, momentum: float, weight_decay: float) -> str:
    """What an optimiser fails with; "" where it works."""
    with (
        torch.random.fork_rng(),
        torch.compiler.set_stance("force_eager"),
        tempfile.TemporaryDirectory() as folder,
    ):
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
        images = torch.randn(3, 1, 4, 4)
        file = Path(folder) / "checkpoint.safetensors"
        try:
            for _ in range(2):
                optimizer = _create(model, name, 1e-3, momentum, weight_decay)
                if file.exists():
                    optimizer.load_state_dict(load_checkpoint(file)["optimizer"])
                model(images).square().mean().backward()
                optimizer.step()
                save_checkpoint(file, {"optimizer": optimizer.state_dict()})
        except Exception as error:  # of packages, of CUDA, of the optimiser itself
            return in_one_line(error)
    return ""


def _plain(name: str) -> str:
    """The name of what a library's version of an optimiser is a version of."""
    return name.removeprefix("bnb").removeprefix("fused").removesuffix("8bit")
