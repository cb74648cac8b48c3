"""Rotated heads: an orthogonal matrix between the backbone's features and a head."""

from __future__ import annotations

import copy
from collections.abc import Callable, ItemsView, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from recon_search.errors import TrainingError
from recon_search.graph.branched import BranchedBackbone


class Heads(Protocol):
    """The heads by task: an `nn.ModuleDict`, or another module that is a mapping."""

    def items(self) -> ItemsView[str, nn.Module] | Iterable[tuple[str, nn.Module]]:
        """Tasks and heads, in order."""

    def __setitem__(self, task: str, head: nn.Module, /) -> None:
        """Put a head in the place of another."""


class RotatedHead(nn.Module):
    """A head that reads rotated features.

    Args:
        head: reads vectors (B, d), or maps (B, d, H, W) whose channels are rotated.
        width: d.

    Attributes:
        rotation: the orthogonal matrix (d, d), a plain buffer; the identity at first.
        reader: is told the features of every forward pass while RotoGrad trains.
    """

    rotation: Tensor

    def __init__(self, head: nn.Module, width: int) -> None:
        super().__init__()
        self.head = head
        like = next(head.parameters())
        self.register_buffer("rotation", torch.eye(width, dtype=like.dtype, device=like.device))
        self.reader: Callable[[Tensor], None] | None = None

    def forward(self, features: Tensor) -> Tensor:
        """Rotate, then read.

        Raises:
            TrainingError: the features are no tensor of the rotation's width.
        """
        check_features(features, len(self.rotation))
        if self.reader is not None:
            self.reader(features)
        output: Tensor = self.head(rotate(features, self.rotation))
        return output


def check_features(features: Any, width: int) -> None:
    """Make sure that a rotation fits features.

    Raises:
        TrainingError: it does not.
    """
    if isinstance(features, Tensor):
        if features.ndim >= 2 and features.shape[1] == width:
            return
        found = f"shape {tuple(features.shape)}"
    else:
        found = f"a {type(features).__name__}"
    raise TrainingError(
        "RotoGrad rotates dimension 1 of one tensor a task, as wide as the head's first matrix "
        f"says, ({width}), got {found}. Use heads that read one such tensor, or another method."
    )


def rotate(features: Tensor, rotation: Tensor) -> Tensor:
    """Multiply every vector along dimension 1 by a matrix (d, d)."""
    if features.ndim == 2:
        return functional.linear(features, rotation)
    return functional.linear(features.movedim(1, -1), rotation).movedim(-1, 1)


def input_width(head: nn.Module) -> int:
    """Return the number of features that a head's first linear layer or convolution reads.

    Raises:
        TrainingError: it has neither.
    """
    for parameter in head.parameters():
        if parameter.ndim > 1:
            return int(parameter.shape[1])
    raise TrainingError(
        "RotoGrad needs heads with a linear layer or a convolution, whose first tells the "
        f"features' width, got {type(head).__name__} without. Use another head or method."
    )


def check_reads(backbone: nn.Module | None) -> None:
    """Make sure that no task reads a pyramid.

    Raises:
        TrainingError: one does.
    """
    if isinstance(backbone, BranchedBackbone):
        refuse_pyramids({task: backbone.reads(task) for task in backbone.tasks})


def refuse_pyramids(reads: Mapping[str, str]) -> None:
    """Make sure that no task reads a pyramid, given what each reads.

    Raises:
        TrainingError: one does.
    """
    for task, each in reads.items():
        if each == "pyramid":
            raise TrainingError(
                f"RotoGrad rotates one vector or one map a task, '{task}' reads a pyramid of "
                "maps. Use another method."
            )


def check_heads(heads: Heads, backbone: nn.Module | None) -> None:
    """Make sure that all heads read features of one width, and share nothing with the backbone.

    Raises:
        TrainingError: they do not.
    """
    widths = {task: input_width(head) for task, head in heads.items()}
    if len(set(widths.values())) > 1:
        raise TrainingError(
            "RotoGrad compares the tasks' features: all heads must read equally many, got "
            f"{widths}. Give the heads one width, or use another method."
        )
    of_backbone = set() if backbone is None else set(backbone.parameters())
    for task, head in heads.items():
        if not of_backbone.isdisjoint(head.parameters()):
            raise TrainingError(
                "RotoGrad differentiates heads apart from the backbone: a head must hold no "
                f"parameter of the backbone, that of '{task}' holds one. Give the head its own, or "
                "use another method."
            )


def add_rotations(heads: Heads) -> None:
    """Put a rotation before every head that has none yet, in place."""
    for task, head in list(heads.items()):
        if not isinstance(head, RotatedHead):
            heads[task] = RotatedHead(head, input_width(head))


def fold_rotations(heads: Heads) -> None:
    """Multiply rotations into the heads that begin with a linear layer, in place.

    W (R z) + b = (W R) z + b: such a head is then as it was before `add_rotations`, and costs as
    much. Before an activation a rotation cannot be folded and stays, as a plain matrix. Heads that
    shared parameters share none of those folded into: their rotations differ.
    """
    for task, head in list(heads.items()):
        if isinstance(head, RotatedHead) and _first_layer(head.head) is not None:
            heads[task] = folded(head)


@torch.no_grad()
def folded(rotated: RotatedHead) -> nn.Module:
    """Return a copy of a head with the rotation multiplied into its first, linear layer."""
    head = copy.deepcopy(rotated.head)
    linear = _first_layer(head)
    assert linear is not None
    linear.weight.copy_(linear.weight @ rotated.rotation)
    return head


def has_rotations(heads: Heads) -> bool:
    """Whether any head still carries its rotation."""
    return any(isinstance(head, RotatedHead) for _, head in heads.items())


def _first_layer(head: nn.Module) -> nn.Linear | None:
    """The linear layer that a head applies to its input first, if it does."""
    if isinstance(head, nn.Linear):
        return head
    if isinstance(head, nn.Sequential):
        layers = [layer for layer in head if not isinstance(layer, nn.Identity)]
        return _first_layer(layers[0]) if layers else None
    return None
