"""Which tasks share which parameters of a model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from recon_search.conflict.gramian import Gradients
from recon_search.errors import TrainingError
from recon_search.graph.admission import is_sharded, is_wrapper
from recon_search.graph.branched import BranchedBackbone


class TaskNetwork(Protocol):
    """A module with a branched backbone and one head a task, such as `MultiTaskModel`."""

    @property
    def backbone(self) -> BranchedBackbone:
        """Gives `{task: features}`."""

    @property
    def heads(self) -> Any:
        """The module that reads each task's features, by task: a mapping, `nn.ModuleDict`, ..."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All parameters, those outside backbone and heads too."""


@dataclass(frozen=True)
class Group:
    """Parameters that the same tasks use.

    Attributes:
        users: numbers of the tasks.
        layers: the parameters by number of their layer, in graph order.
        others: parameters that belong to no layer: of heads, and of whatever else the model has.
    """

    users: tuple[int, ...]
    layers: dict[int, list[nn.Parameter]] = field(default_factory=dict)
    others: list[nn.Parameter] = field(default_factory=list)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All of them."""
        return [*(p for layer in self.layers.values() for p in layer), *self.others]


class Sharing:
    """Who uses which of a model's parameters, told apart by identity.

    Declared users are the tasks of a layer's copy together with every task whose head holds the
    parameter; those of a parameter outside backbone and heads are all tasks. Of the tasks present
    in a step the autograd graph has the last word: a task uses what its loss reaches.

    Attributes:
        layers: the parameters of every layer, of all its copies.
        declared: the numbers of the declared users of each parameter that requires gradients.
        trainable: the numbers of the tasks that have such parameters in backbone or head.

    Raises:
        TrainingError: the model is no `TaskNetwork`.
    """

    def __init__(self, model: TaskNetwork) -> None:
        check_network(model)
        number = {task: index for index, task in enumerate(model.tasks)}
        users: dict[nn.Parameter, set[int]] = defaultdict(set)
        self.layers: dict[str, list[nn.Parameter]] = {}
        self._layer: dict[nn.Parameter, int] = {}
        for index, (name, blocks) in enumerate(model.backbone.layers().items()):
            self.layers[name] = list(dict.fromkeys(p for own in blocks for p in own.parameters))
            for block in blocks:
                for parameter in block.parameters:
                    users[parameter].update(number[task] for task in block.tasks)
                    self._layer[parameter] = index
        for task in model.tasks:
            for parameter in model.heads[task].parameters():
                users[parameter].add(number[task])
        known = {p: frozenset(tasks) for p, tasks in users.items() if p.requires_grad}
        everyone = frozenset(number.values())
        elsewhere = {p: everyone for p in model.parameters() if p.requires_grad and p not in known}
        self.declared: Mapping[nn.Parameter, frozenset[int]] = {**known, **elsewhere}
        self.trainable = frozenset(task for tasks in known.values() for task in tasks)
        self.sets = sorted({tuple(sorted(tasks)) for tasks in known.values()})

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All parameters that require gradients: layers in graph order, heads, the rest."""
        return list(self.declared)

    def groups(self, gradients: Gradients, present: Collection[int]) -> list[Group]:
        """Group what a step's losses reached by the tasks that use it, the largest set first.

        Args:
            gradients: of every task.
            present: numbers of the tasks that had a loss; of the others the declaration holds.
        """
        reached: dict[nn.Parameter, list[int]] = defaultdict(list)
        for task in sorted(present):
            for parameter in gradients[task]:
                reached[parameter].append(task)
        groups: dict[tuple[int, ...], Group] = {}
        for parameter, declared in self.declared.items():
            if parameter not in reached:
                continue
            users = tuple(sorted(declared.difference(present).union(reached[parameter])))
            group = groups.setdefault(users, Group(users))
            if parameter in self._layer:
                group.layers.setdefault(self._layer[parameter], []).append(parameter)
            else:
                group.others.append(parameter)
        return sorted(groups.values(), key=lambda group: (-len(group.users), group.users))


def check_network(model: Any) -> None:
    """Make sure that a model has what methods look at.

    Raises:
        TrainingError: it is wrapped or sharded, its backbone not branched, or a task without head.
    """
    if isinstance(model, nn.Module) and (is_wrapper(model) or is_sharded(model)):
        raise TrainingError(
            "A method needs the model itself, whose tasks it differentiates one by one, got a "
            f"{type(model).__name__}. Pass its .module, or the model before it is sharded."
        )
    if not isinstance(getattr(model, "backbone", None), BranchedBackbone):
        raise TrainingError(
            f"A method needs a model whose `backbone` is branched, got {type(model).__name__} with "
            f"{type(getattr(model, 'backbone', None)).__name__}. Make it with recon_search.branch."
        )
    tasks = getattr(model, "tasks", ())
    lacking = [task for task in tasks if task not in getattr(model, "heads", ())]
    if lacking or set(tasks) != set(model.backbone.tasks):
        raise TrainingError(
            "A method needs a model with `tasks`, those of its backbone, and in `heads` one head "
            f"each, got tasks {list(tasks)}, of the backbone {list(model.backbone.tasks)}, without "
            f"head {lacking}. Name heads after tasks."
        )
