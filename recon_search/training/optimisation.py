"""timm's optimisers and schedules: made, and tried before a training relies on them."""

from __future__ import annotations

import functools
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from timm.optim import (
    create_optimizer_v2,
    get_optimizer_info,
    list_optimizers,
    param_groups_layer_decay,
    param_groups_weight_decay,
)
from timm.scheduler import create_scheduler_v2
from torch import nn, optim

from recon_search.chance import forked
from recon_search.errors import FileError, RecipeError, in_one_line, nearest
from recon_search.model.network import MultiTaskModel
from recon_search.recipe import TrainConfig
from recon_search.training.checkpoint import load_checkpoint, save_checkpoint

BATCHED = frozenset(
    [optim.SGD, optim.Adam, optim.AdamW, optim.Adamax, optim.Adagrad, optim.Adadelta, optim.RMSprop]
)
"""Optimisers that take all tensors in one call, on the CPU too: the same bits, less Python."""


def create_optimizer(
    model: MultiTaskModel, config: TrainConfig, learned: Sequence[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """Create the optimiser of a model's parameters; norms and biases have no weight decay.

    Frozen parameters are not among them. Layers and heads that learn at a rate of their own are
    groups with an `lr_scale`, as timm's schedules understand it.

    Nesterov's momentum is the default of some, and of the momentum 0 it is none: plain steps then.

    Args:
        model: the model.
        config: names the optimiser and its rates.
        learned: what a method learns: a last group, without weight decay.
    """
    subject = model if _is_even(config) else parameter_groups(model, config)
    made = _create(subject, config.optimizer, config.lr, config.momentum, config.weight_decay)
    if learned:
        made.add_param_group({"params": list(learned), "weight_decay": 0.0})
    return made


def parameter_groups(model: MultiTaskModel, config: TrainConfig) -> list[dict[str, Any]]:
    """Group a model's parameters by what their learning rate is multiplied by, and weight decay.

    timm's own groups: those of layers as its `group_matcher` has them for the plain backbone, with
    `layer_decay` to the power of how many are above, every copy of a layer like the layer; heads
    and necks are the last layer, and `head_lr_scale` as fast.
    """
    undecayed, decay = model.no_weight_decay(), config.weight_decay
    if config.layer_decay < 1:
        groups = param_groups_layer_decay(
            model, decay, undecayed, layer_decay=config.layer_decay, weight_decay_exclude_1d=True
        )
    else:
        groups = param_groups_weight_decay(model, decay, no_weight_decay_list=undecayed)
    heads = set(model.heads.parameters())
    divided = []
    for group in groups:
        scale = group.get("lr_scale", 1.0)
        below = [parameter for parameter in group["params"] if parameter not in heads]
        above = [parameter for parameter in group["params"] if parameter in heads]
        for parameters, own in ((below, scale), (above, scale * config.head_lr_scale)):
            if parameters:
                divided.append({**group, "params": parameters, "lr_scale": own})
    return divided


def base_lr(optimizer: torch.optim.Optimizer) -> float:
    """Return the learning rate that the schedule has set, before layers and heads scale it."""
    group = optimizer.param_groups[0]
    lr: float = group["lr"]
    return lr / group["lr_scale"] if group.get("lr_scale", 1.0) != 1 else lr


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
        min_lr=config.min_lr,
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
        if name in usable_optimizers():
            advice = " Change train.momentum or train.weight_decay."
        else:
            advice = nearest(_plain(name), usable_optimizers()) or " Take adamw."
        raise RecipeError(
            f"`train.optimizer` must work on tensors of the CPU and first derivatives, '{name}' "
            f"with momentum {momentum:g} and weight decay {weight_decay:g} does not: "
            f"{trouble}.{advice}"
        )


@functools.cache
def usable_optimizers() -> tuple[str, ...]:
    """Names of timm's optimisers that `check_optimizer` lets pass; all are tried once."""
    return tuple(name for name in list_optimizers() if not _trouble(name, 0.9, 0.0))


def _is_even(config: TrainConfig) -> bool:
    """Whether all parameters learn at one rate."""
    return config.layer_decay == config.head_lr_scale == 1


def _create(
    model: nn.Module | list[dict[str, Any]],
    name: str,
    lr: float,
    momentum: float,
    weight_decay: float,
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
        forked(),
        torch.compiler.set_stance("force_eager"),
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of what others recommend to install
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
        except FileError:
            raise
        except Exception as error:  # of packages, of CUDA, of the optimiser itself
            return in_one_line(error)
    return ""


def _plain(name: str) -> str:
    """The name of what a library's version of an optimiser is a version of."""
    return name.removeprefix("bnb").removeprefix("fused").removesuffix("8bit")
