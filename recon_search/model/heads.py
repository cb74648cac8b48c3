"""Heads: from the features of a backbone to a task's output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recon_search.errors import RecipeError
from recon_search.imports import call, is_import_path
from recon_search.model.backbone import seeded
from recon_search.recipe import HeadConfig, HeadsConfig, NeckConfig
from recon_search.tasks.task import Task

ACTIVATIONS = {"none": nn.Identity, "relu": nn.ReLU, "gelu": nn.GELU}


class NeckedHead(nn.Module):
    """A head that reads features through a neck, which heads of other tasks may share.

    Args:
        neck: from features to what the head reads.
        head: from that to the output.
    """

    def __init__(self, neck: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.neck = neck
        self.head = head

    def forward(self, features: Tensor) -> Tensor:
        """Read through the neck."""
        output: Tensor = self.head(self.neck(features))
        return output


def create_heads(
    config: HeadsConfig, width: int, tasks: Sequence[Task], *, seed: int = 0
) -> dict[str, nn.Module]:
    """Create the heads of tasks, by name; those that name a neck share it.

    Equal seeds give equal weights to every head and neck, whatever the other tasks are.

    Args:
        config: the heads.
        width: d of the features (B, d).
        tasks: say how many numbers each head gives.
        seed: of the initialisation.

    Raises:
        RecipeError: a head or a neck of one's own cannot be imported, called so, or is no module.
    """
    necks: dict[str, tuple[nn.Module, int]] = {}
    heads: dict[str, nn.Module] = {}
    for task in tasks:
        own = config.of(task.name)
        if own.neck is not None and own.neck not in necks:
            with seeded(seed, f"neck {own.neck}"):
                necks[own.neck] = create_neck(config.necks[own.neck], width)
        with seeded(seed, task.name):
            if own.neck is None:
                heads[task.name] = create_head(own, width, task.n_outputs)
            else:
                neck, given = necks[own.neck]
                heads[task.name] = NeckedHead(neck, create_head(own, given, task.n_outputs))
    return heads


def create_neck(config: NeckConfig, width: int) -> tuple[nn.Module, int]:
    """Create a neck: the features' activation and a hidden layer; or one's own.

    Args:
        config: what neck. A `kind` "package.module:name" is called with the width and `args` by
            keyword, and returns a module.
        width: d of the features (B, d).

    Returns:
        The neck, and the width of what it gives.

    Raises:
        RecipeError: a neck of one's own cannot be imported, called so, or is no module.
    """
    if not is_import_path(config.kind):
        hidden = nn.Linear(width, config.hidden)
        return nn.Sequential(ACTIVATIONS[config.activation](), hidden, nn.ReLU()), config.hidden
    neck = _own(config.kind, "`necks` kind", width, **config.args)
    with torch.no_grad():
        given = neck.eval()(torch.zeros(2, width))
    neck.train()
    if not isinstance(given, Tensor) or given.ndim != 2:
        raise RecipeError(
            f"A neck must turn features (B, {width}) into (B, d), {config.kind} gave "
            f"{tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__}. Mend it."
        )
    return neck, given.shape[1]


def create_head(config: HeadConfig, width: int, n_outputs: int) -> nn.Module:
    """Create a head: the features' activation, then a linear layer or an MLP; or one's own.

    Args:
        config: what head. A `kind` "package.module:name" is called with width, number of outputs
            and `args` by keyword, and returns a module.
        width: d of the features (B, d).
        n_outputs: numbers that the head gives.

    Raises:
        RecipeError: a head of one's own cannot be imported, called so, or is no module.
    """
    if config.is_own:
        return _own(config.kind, "`head.kind`", width, n_outputs, **config.args)
    parts: list[nn.Module] = [ACTIVATIONS[config.activation]()]
    if config.kind == "mlp":
        parts += [nn.Linear(width, config.hidden), nn.ReLU()]
        width = config.hidden
    return nn.Sequential(*parts, nn.Linear(width, n_outputs))


def _own(kind: str, what: str, *args: Any, **kwargs: Any) -> nn.Module:
    """Make a module of one's own."""
    made = call(kind, what, *args, **kwargs)
    if not isinstance(made, nn.Module):
        raise RecipeError(
            f"{what} must make a torch.nn.Module, {kind} made {type(made).__name__}. Return one."
        )
    return made
