"""From the tasks' losses to `.grad`: joint training and Gramian weightings on what is shared.

A Gramian weighting maps the (T, T) Gramian of the tasks' gradients to task weights w; the shared
gradient is sum_t w_t g_t. PCGrad (arXiv 2001.06782, Algorithm 1) is exact this way, because each
projected gradient is a combination of the tasks' gradients whose coefficients follow from inner
products alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchjd.aggregation import PCGradWeighting

from recon_search.conflict.gramian import Gradients, layer_gramians, task_gradients
from recon_search.errors import RecipeError, nearest
from recon_search.training.model import MultiTaskModel

Weighting = Callable[[Tensor], Tensor]
"""A Gramian (n, n) in, task weights (n,) out."""

METHODS: dict[str, Callable[[], Weighting] | None] = {
    "joint": None,
    "pcgrad": PCGradWeighting,
}
"""Gradient methods by name; `joint` needs no Gramian."""


def check_method(name: str) -> None:
    """Refuse an unknown method.

    Raises:
        RecipeError: with near names.
    """
    if name not in METHODS:
        raise RecipeError(
            f"The method must be one of {', '.join(METHODS)}, got '{name}'.{nearest(name, METHODS)}"
        )


@dataclass(frozen=True)
class _Group:
    """Parameters that the same tasks use, by layer; heads are no layers."""

    users: tuple[int, ...]
    layers: dict[int, list[nn.Parameter]]
    heads: list[nn.Parameter]

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [*(p for layer in self.layers.values() for p in layer), *self.heads]


class GradientCombiner:
    """Sets `.grad` of a multi-task model from its tasks' losses.

    What some tasks share is combined among those tasks by the method; what one task owns gets that
    task's gradient.

    Args:
        model: the model.
        method: a key of `METHODS`.

    Raises:
        RecipeError: the method is unknown.
    """

    def __init__(self, model: MultiTaskModel, method: str) -> None:
        check_method(method)
        self.n_layers = len(model.backbone.layers())
        self.tasks = model.tasks
        self.groups = _group_parameters(model)
        factory = METHODS[method]
        self.weightings: dict[tuple[int, ...], Weighting] = {}
        if factory is not None:
            self.weightings = {
                group.users: factory() for group in self.groups if len(group.users) > 1
            }
        self._parameters = [
            [p for group in self.groups if task in group.users for p in group.parameters]
            for task in range(len(self.tasks))
        ]

    def backward(self, losses: Mapping[str, Tensor], *, measure: bool = False) -> Tensor | None:
        """Differentiate the losses and set `.grad` of every parameter they reach.

        Args:
            losses: one scalar a task.
            measure: return the Gramians of this step; costs nothing where the method needs them.

        Returns:
            The layers' Gramians (L, T, T) if `measure`, layers in graph order, else None. Tasks
            with private copies of a layer have inner product zero there.
        """
        if not (measure or self.weightings):
            torch.stack([losses[task] for task in self.tasks]).sum().backward()  # type: ignore[no-untyped-call]
            return None
        gradients = task_gradients([losses[task] for task in self.tasks], self._parameters)
        total: Tensor | None = None
        for group in self.groups:
            weighting = self.weightings.get(group.users)
            weights = None
            if group.layers and (measure or weighting is not None):
                keyed = {str(index): layer for index, layer in group.layers.items()}
                gramians = layer_gramians(gradients, keyed)  # (layers of the group, T, T)
                if weighting is not None:
                    users = torch.tensor(group.users, device=gramians.device)
                    weights = weighting(gramians.sum(0)[users[:, None], users])  # (n,)
                if measure:
                    if total is None:
                        total = gramians.new_zeros(self.n_layers, *gramians.shape[1:])
                    index = torch.tensor(list(group.layers), device=gramians.device)
                    total.index_add_(0, index, gramians)
            _assign(gradients, group, weights)
        return total


def _group_parameters(model: MultiTaskModel) -> list[_Group]:
    """Group all parameters by the tasks that use them."""
    number = {task: index for index, task in enumerate(model.tasks)}
    layers: dict[tuple[int, ...], dict[int, list[nn.Parameter]]] = defaultdict(dict)
    for index, blocks in enumerate(model.backbone.layers().values()):
        for block in blocks:
            users = tuple(number[task] for task in block.tasks)
            trainable = [p for p in block.parameters if p.requires_grad]
            if trainable:
                layers[users].setdefault(index, []).extend(trainable)
    heads: dict[tuple[int, ...], list[nn.Parameter]] = {
        (number[task],): [p for p in model.heads[task].parameters() if p.requires_grad]
        for task in model.tasks
    }
    return [
        _Group(users, layers.get(users, {}), heads.get(users, []))
        for users in sorted({*layers, *heads}, key=lambda users: (-len(users), users))
    ]


def _assign(gradients: Gradients, group: _Group, weights: Tensor | None) -> None:
    """Set `.grad` to the weighted sum of the users' gradients; no weights: the plain sum."""
    for parameters in _alike(gradients, group):
        users = [task for task in group.users if parameters[0] in gradients[task]]
        combined: list[Tensor] | None = None
        for task in users:
            rows = [gradients[task][p] for p in parameters]
            if weights is not None:
                weight = weights[group.users.index(task)].to(rows[0].dtype)
                rows = list(torch._foreach_mul(rows, weight))
            elif combined is None:
                # Autograd may hand out one tensor for two parameters: never change it in place.
                rows = [row.clone() for row in rows]
            if combined is None:
                combined = rows
            else:
                torch._foreach_add_(combined, rows)
        for parameter, gradient in zip(parameters, combined or [], strict=True):
            parameter.grad = gradient


def _alike(gradients: Gradients, group: _Group) -> list[list[nn.Parameter]]:
    """Divide a group's parameters by the tasks whose loss reached them; others drop out."""
    reached: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
    for parameter in group.parameters:
        users = tuple(task for task in group.users if parameter in gradients[task])
        if users:
            reached[users].append(parameter)
    return list(reached.values())
