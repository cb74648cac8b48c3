"""The branched backbone: a shared trunk, computed once, and branches for groups of tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from recon_search.errors import BackboneError, SplitError, nearest
from recon_search.graph.aliases import (
    drop_aliases,
    fill_aliases,
    find_aliases,
    tie,
    tie_aliases,
    tied,
)
from recon_search.graph.blueprint import Blueprint
from recon_search.graph.calls import Call, Reads
from recon_search.graph.checkpointing import compile_in_parts
from recon_search.graph.emit import Forward, Forwards, compile_forward, emit
from recon_search.graph.fixed import METADATA, Part, attributes, data, fix
from recon_search.graph.habits import classifier, grouping, undecayed
from recon_search.graph.names import names_of
from recon_search.graph.path import Path, parameters
from recon_search.graph.split import Split
from recon_search.graph.tensors import clear_caches


@dataclass(frozen=True)
class Block:
    """One copy of a layer.

    Attributes:
        tasks: those that share it.
        parameters: its weight, bias, ...
    """

    tasks: tuple[str, ...]
    parameters: list[nn.Parameter]


class BranchedBackbone(Part):
    """A backbone whose split layers have one copy per group of tasks. Made by `branch`.

    Tensors that all tasks share live under `shared`, those of a group under `branches.<tasks
    joined by +>`, each under its plain timm name. `parameters()` and `state_dict()` hold every
    tensor once, although several modules may share it: where an unsplit layer is called by several
    branches with buffers of their own, the further names of its weights are left out on saving and
    filled in on loading.

    What timm's optimisers and data helpers ask of a model it answers as the plain model does, of
    which it also has all attributes that are plain data. They are fixed, as all that the graph has
    read: setting one is refused (see `fixed.Part`).

    Attributes:
        split: the plan.
        shared: what all tasks share.
        branches: what groups of tasks share.
    """

    def __init__(self, split: Split, blueprint: Blueprint, shared: nn.Module, branches: nn.Module):
        super().__init__()
        self.split = split
        self.blueprint = blueprint
        self.shared = shared
        self.branches = branches
        self._n_inputs = len(blueprint.graphs[True].find_nodes(op="placeholder"))
        self._forwards = Forwards()
        self._in_parts = False
        self._compile_all()
        self._aliases = self._tied = find_aliases(self, blueprint.layout)
        plain = blueprint.template
        for name, value in data(plain).items():
            if not hasattr(self, name):
                self.__dict__[name] = value
        self.fix(attributes(plain) - {*METADATA})
        for tree in (shared, *branches.children()):
            fix(tree, plain)
        self.register_state_dict_post_hook(drop_aliases)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(fill_aliases)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(tie_aliases)  # type: ignore[no-untyped-call]

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of a copy, or of a pickle, which has no generated functions."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._compile_all()

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in order."""
        return self.split.tasks

    def forward(self, x: Any, *more: Any, tasks: Sequence[str] | None = None) -> dict[str, Any]:
        """Compute the features of some tasks.

        Args:
            x: a batch, as the backbone takes it.
            more: the further inputs of a backbone that takes several; `tasks` may follow them.
            tasks: compute these alone, skipping all branches they do not use; all if None.

        Returns:
            the backbone's output for each task, in task order: of a task that reads a pyramid the
            list of its maps, in timm's order. Tasks that share every layer get the same tensor, so
            it should not be written into.

        Raises:
            SplitError: a task is unknown, none is named, or the names are no list.
        """
        if len(more) == self._n_inputs:
            *more, tasks = more  # type: ignore[assignment]
        wanted = self.tasks if tasks is None else names_of(tasks, "The tasks to compute")
        forward = self._forwards.get((self.training, wanted))
        if forward is None:
            forward = self._compile(self.training, wanted)
        return forward(self, x, *more)

    def train(self, mode: bool = True) -> Self:
        """Set the mode and empty caches of attention biases."""
        super().train(mode)
        clear_caches(self)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Convert every tensor (`to`, `cuda`, `double`, ...) and keep shared ones shared."""
        aliases = tied(self, self._aliases)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        tie(self, aliases)
        return self

    def layers(self) -> dict[str, list[Block]]:
        """Return the copies of every splittable layer of the backbone, in order of first use.

        An unsplit layer is one block with all tasks, wherever it is called.
        """
        number = {task: position for position, task in enumerate(self.tasks)}

        def copied(names: Sequence[str], group: Sequence[str]) -> Block:
            positions = [number[task] for task in group]
            return Block(tuple(group), parameters(self, self.blueprint, names, positions))

        return {
            layer: [copied(names, group) for group in self.blueprint.layout.groups(names[0])]
            for layer, names in self.blueprint.layers.items()
        }

    def layer_parameters(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters of all copies of every splittable layer, in order of first use."""
        return {
            layer: list(dict.fromkeys(p for block in blocks for p in block.parameters))
            for layer, blocks in self.layers().items()
        }

    def add_aliases(self, further: Mapping[str, str]) -> None:
        """Tie parameters that modules changed after branching share: saved once, and moved as one.

        Args:
            further: paths, each with that under which the same parameter is kept.
        """
        self._aliases = {**self._aliases, **further}

    def task_state_dict(self, task: str) -> dict[str, Tensor]:
        """Return the weights of one task's path under plain timm names, buffers included.

        The tensors are those of this network, not copies, as long as no module computes its own
        from others (pruned, parametrised). An unsplit timm model of the same name and arguments
        loads them strictly and computes this task's features. The count of batches, which frozen
        norms no longer keep, is 0 then.

        Raises:
            SplitError: the task is unknown.
            BackboneError: a module was replaced since by one with other tensors.
        """
        path = self.path(task)
        path.check()
        return {key: path.read(name).detach() for key, name in self.blueprint.keys.items()}

    def load_task_state_dict(self, task: str, state: Mapping[str, Tensor]) -> None:
        """Copy weights with plain timm names into one task's path, and into all that shares them.

        Raises:
            SplitError: the task is unknown.
            BackboneError: a name is missing or unknown, a shape differs, or the network computes
                the tensor from others since a change.
        """
        own = self.task_state_dict(task)
        for name in (*own, *state):
            if name not in own or name not in state:
                where, near = ("missing", state) if name in own else ("unknown", own)
                raise BackboneError(
                    f"A task's weights must have the backbone's {len(own)} names, '{name}' is "
                    f"{where}.{nearest(name, near)} Take them from the same model."
                )
            if own[name].shape != state[name].shape:
                raise BackboneError(
                    f"'{name}' must have shape {tuple(own[name].shape)}, got "
                    f"{tuple(state[name].shape)}. Take the weights from the same model."
                )
        path = self.path(task)
        targets = {key: path.kept(name) for key, name in self.blueprint.keys.items()}
        with torch.no_grad():
            for key, tensors in targets.items():
                for tensor in tensors:
                    tensor.copy_(state[key])
        clear_caches(self)

    def single(self, task: str) -> nn.Module:
        """Return one task's path as a plain timm module of the original class.

        It has its own copy of the weights and this network's mode. What a module computes from
        other tensors (pruned, parametrised) is a plain weight there; modules replaced by others
        with the same tensors (frozen norms) stay replaced.

        Raises:
            SplitError: the task is unknown.
            BackboneError: a module was replaced since by one with other tensors.
        """
        return self.path(task).single().train(self.training)

    def reads(self, task: str) -> Reads:
        """Tell whether a task gets a vector (what the plain backbone gives) or a pyramid of maps.

        Raises:
            SplitError: the task is unknown.
        """
        self._check_task(task)
        layout, kind = self.blueprint.layout, self.blueprint.call.kind
        if layout.reads:
            return layout.reads[self.tasks.index(task)]
        return "pyramid" if kind == "pyramid" else "vector"

    def call_of(self, task: str) -> Call:
        """Return what of `single(task)` gives the task's features: `call_of(task).apply(plain, x)`.

        Raises:
            SplitError: the task is unknown.
        """
        return self.blueprint.call.of(self.reads(task))

    def path(self, task: str) -> Path:
        """Return what one task's forward pass calls and reads.

        Raises:
            SplitError: the task is unknown.
        """
        self._check_task(task)
        return Path(self, self.blueprint, self.tasks.index(task))

    def no_weight_decay(self) -> set[str]:
        """Name the parameters, every copy, that timm keeps from weight decay."""
        return undecayed(self.blueprint.template, self)

    def group_matcher(self, coarse: bool = False) -> Callable[[str], float]:
        """Return what tells timm the group of layers of a parameter, for layer-wise decay."""
        return grouping(self.blueprint.template, self, coarse=coarse)

    def get_classifier(self) -> nn.Module | tuple[nn.Module, ...]:
        """Return the classifier that all tasks share, an identity where timm has none.

        Raises:
            SplitError: they share none.
        """
        return classifier(self.blueprint.template, self)

    def reset_classifier(self, *args: object, **kwargs: object) -> None:
        """Refuse, for the graph is fixed.

        Raises:
            BackboneError: always.
        """
        raise BackboneError(
            "A backbone's classifier must be set before it is branched, got reset_classifier() "
            "afterwards. Call it on the plain backbone and branch that."
        )

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute activations twice in training, to keep fewer (see `checkpointing`)."""
        self._in_parts = enable
        self._forwards.clear()
        self._compile_all()

    def _check_task(self, task: str) -> None:
        if task not in self.tasks:
            raise SplitError(
                f"The task must be one of {list(self.tasks)}, got {task!r}."
                f"{nearest(str(task), self.tasks)} Name one of them."
            )

    def _compile_all(self) -> None:
        """Make the functions of all tasks now, for torch.compile and torch.export cannot."""
        for training in self.blueprint.graphs:
            if (training, self.tasks) not in self._forwards:
                self._compile(training, self.tasks)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _compile(self, training: bool, wanted: tuple[str, ...]) -> Forward:
        if not wanted:
            raise SplitError("At least one task must be computed, got none. Name one.")
        for task in wanted:
            self._check_task(task)
        positions = tuple(i for i, task in enumerate(self.tasks) if task in wanted)
        graph = emit(self.blueprint.graphs[training], self.blueprint.layout, positions)
        mode = "train" if training else "eval"
        name = f"{mode} {' '.join(wanted)}"
        if training and self._in_parts:
            forward = compile_in_parts(graph, self.blueprint.cuts[training], name)
        else:
            forward = compile_forward(graph, name)
        self._forwards[training, wanted] = forward
        return forward
