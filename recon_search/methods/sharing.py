"""Which tasks share which parameters of a model."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from torch import nn

from recon_search.model.network import MultiTaskModel


@dataclass(frozen=True)
class Group:
    """Parameters that the same tasks use.

    Attributes:
        users: numbers of the tasks.
        layers: the parameters by number of their layer, in graph order.
        heads: parameters of heads, which are no layers.
    """

    users: tuple[int, ...]
    layers: dict[int, list[nn.Parameter]]
    heads: list[nn.Parameter]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All of them."""
        return [*(p for layer in self.layers.values() for p in layer), *self.heads]


def group_parameters(model: MultiTaskModel) -> list[Group]:
    """Group all parameters that require gradients by the tasks that use them, largest set first."""
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
        Group(users, layers.get(users, {}), heads.get(users, []))
        for users in sorted({*layers, *heads}, key=lambda users: (-len(users), users))
    ]
