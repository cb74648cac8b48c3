"""Rotated heads: an orthogonal matrix between the backbone's features and a head."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional


class RotatedHead(nn.Module):
    """A head that reads rotated features.

    Args:
        head: reads vectors (B, d), or maps (B, d, H, W) whose channels are rotated.
        width: d.

    Attributes:
        rotation: the orthogonal matrix (d, d), a plain buffer; the identity at first.
    """

    rotation: Tensor

    def __init__(self, head: nn.Module, width: int) -> None:
        super().__init__()
        self.head = head
        like = next(head.parameters())
        self.register_buffer("rotation", torch.eye(width, dtype=like.dtype, device=like.device))

    def forward(self, features: Tensor) -> Tensor:
        """Rotate, then read."""
        output: Tensor = self.head(rotate(features, self.rotation))
        return output


def rotate(features: Tensor, rotation: Tensor) -> Tensor:
    """Multiply every vector along dimension 1 by a matrix (d, d)."""
    if features.ndim == 2:
        return functional.linear(features, rotation)
    return functional.linear(features.movedim(1, -1), rotation).movedim(-1, 1)


def input_width(head: nn.Module) -> int:
    """Return the number of features that a head's first linear layer or convolution reads."""
    return next(parameter.shape[1] for parameter in head.parameters() if parameter.ndim > 1)


def add_rotations(heads: nn.ModuleDict) -> None:
    """Put a rotation before every head that has none yet, in place."""
    for task, head in heads.items():
        if not isinstance(head, RotatedHead):
            heads[task] = RotatedHead(head, input_width(head))


def fold_rotations(heads: nn.ModuleDict) -> None:
    """Multiply rotations into the heads that begin with a linear layer, in place.

    W (R z) + b = (W R) z + b: such a head is then as it was before `add_rotations`, and costs as
    much. Before an activation a rotation cannot be folded and stays, as a plain matrix.
    """
    for task, head in heads.items():
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


def has_rotations(heads: nn.ModuleDict) -> bool:
    """Whether any head still carries its rotation."""
    return any(isinstance(head, RotatedHead) for head in heads.values())


def _first_layer(head: nn.Module) -> nn.Linear | None:
    """The linear layer that a head applies to its input first, if it does."""
    if isinstance(head, nn.Linear):
        return head
    if isinstance(head, nn.Sequential):
        layers = [layer for layer in head if not isinstance(layer, nn.Identity)]
        return _first_layer(layers[0]) if layers else None
    return None
