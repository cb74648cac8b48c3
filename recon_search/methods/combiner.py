"""From the tasks' losses to `.grad`: joint training and gradient methods on what is shared.

A Gramian weighting maps the (T, T) Gramian of the tasks' gradients to task weights w; the shared
gradient is sum_t w_t g_t. PCGrad (arXiv 2001.06782, Algorithm 1) is exact this way, because each
projected gradient is a combination of the tasks' gradients whose coefficients follow from inner
products alone. Methods that need more get the Jacobian of what is shared; methods that need less,
scalarisers, get the losses.

**Absent tasks.** A task without a loss in a step takes no part in it: what it shares is combined
among the tasks that are present, and what only one of them uses gets that task's gradient. A
stateful method has one state for each set of tasks it ever combined. A scalariser sees an absent
task's last loss, as a constant (1 before the first).

**Several processes** (see `parallel`). Losses and the tasks' gradients are averaged over the
processes before a method sees them: a method on each process's own would be another one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from recon_search import parallel
from recon_search.conflict.gramian import Gradients, layer_gramians, task_gradients
from recon_search.conflict.lockstep import lockstep_gramians
from recon_search.errors import TrainingError
from recon_search.methods.registry import find_method
from recon_search.methods.sharing import Group, group_parameters
from recon_search.methods.state import read_state, write_state
from recon_search.model.network import MultiTaskModel

Forward = Callable[[], tuple[Mapping[str, Tensor], Mapping[str, Tensor]]]
"""Computes a batch's losses and features, by task."""


class GradientCombiner:
    """Sets `.grad` of a multi-task model from its tasks' losses.

    What some tasks share is combined among those tasks by the method; what one task owns gets that
    task's gradient. Parameters that do not require gradients when this is made are left alone.

    Args:
        model: the model.
        method: the name of a method that needs no features.
        options: of the method.
        low_memory: where only Gramians need the tasks' gradients, take these a parameter at a time
            (see `lockstep_gramians`); measured steps are then of one batch.

    Raises:
        RecipeError: the method or an option is unknown, or an optional package is missing.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        method: str,
        options: Mapping[str, Any] | None = None,
        *,
        low_memory: bool = False,
    ) -> None:
        self.method = find_method(method)
        self.options = self.method.complete(options or {})
        self.low_memory = low_memory and parallel.size() == 1  # it would see one part's gradients
        self.layers = {
            name: [p for block in blocks for p in block.parameters]
            for name, blocks in model.backbone.layers().items()
        }
        self.tasks = model.tasks
        self.groups = group_parameters(model)
        self.device = next(model.parameters()).device
        self.scalariser: nn.Module | None = None
        if self.method.needs == "losses":
            self.scalariser = self._create(tuple(range(len(self.tasks))))
        self.operators: dict[tuple[int, ...], nn.Module] = {}
        if self.method.needs in ("Gramian", "gradients"):
            for group in self.groups:
                if len(group.users) > 1:
                    self._operator(group.users)
        self._parameters = [
            [p for group in self.groups if task in group.users for p in group.parameters]
            for task in range(len(self.tasks))
        ]
        self._last_losses = torch.ones(len(self.tasks), device=self.device)
        self._gramians: Tensor | None = None  # of a step measured in low memory
        self._clear()

    def backward(self, losses: Mapping[str, Tensor], *, measure: bool = False) -> Tensor | None:
        """Differentiate one batch's losses and set `.grad` of every parameter they reach.

        Args:
            losses: one scalar a task; tasks may be left out.
            measure: return the Gramians of this step; costs nothing where the method needs them.

        Returns:
            The layers' Gramians (L, T, T) if `measure`, layers in graph order, else None. Tasks
            with private copies of a layer have inner product zero there.
        """
        self.accumulate(losses, measure=measure)
        return self.combine(measure=measure)

    def accumulate(
        self,
        losses: Mapping[str, Tensor],
        features: Mapping[str, Tensor] | None = None,
        *,
        share: float = 1.0,
        measure: bool = False,
    ) -> None:
        """Differentiate one of the batches of a step.

        Joint training and scalarisers add to `.grad` at once; otherwise the tasks' gradients add up
        until `combine`. Scalarisers act on each batch.

        Args:
            losses: one scalar a task; tasks may be left out.
            features: not looked at.
            share: the weight of this batch, 1 / n for the mean over n.
            measure: keep the tasks' gradients for Gramians; the same for all batches of a step.
        """
        losses = {task: loss for task, loss in losses.items() if loss.requires_grad}
        if self.scalariser is not None and losses:
            losses = self._scalarise(losses)
        if share != 1:
            losses = {task: loss * share for task, loss in losses.items()}
        present = [task for task, name in enumerate(self.tasks) if name in losses]
        if not present:
            return
        stack = [losses[self.tasks[task]] for task in present]
        if not (measure or self.operators):
            torch.stack(stack).sum().backward()  # type: ignore[no-untyped-call]
            return
        self._present.update(present)
        if self.low_memory and not self.operators:
            assert self._gramians is None, "a measured step in low memory is of one batch"
            index = torch.tensor(present, device=self.device)
            gramians = lockstep_gramians(stack, self.layers)  # (L, n, n)
            whole = gramians.new_zeros(len(gramians), len(self.tasks), len(self.tasks))
            whole[:, index[:, None], index] = gramians
            self._gramians = whole
            return
        found = task_gradients(stack, [self._parameters[task] for task in present])
        for task, gradients in zip(present, found, strict=True):
            total = self._gradients[task]
            for parameter, gradient in gradients.items():
                # Autograd may hand out one tensor for two parameters: never add in place.
                known = total.get(parameter)
                total[parameter] = gradient if known is None else known + gradient

    def combine(self, *, measure: bool = False) -> Tensor | None:
        """Set `.grad` from the accumulated gradients of the tasks.

        Returns:
            As `backward`.

        Raises:
            TrainingError: the method finds no weights, or gradients are not finite.
        """
        if not (measure or self.operators):
            parallel.average_gradients(p for group in self.groups for p in group.parameters)
            return None
        total = self._gramians
        if total is not None:
            self._clear()
            return total
        _average(self._gradients)
        for group in self.groups:
            users = tuple(task for task in group.users if task in self._present)
            operator = self._operator(users) if self.operators and len(users) > 1 else None
            by_gramian = operator is not None and self.method.needs == "Gramian"
            weights = None
            if group.layers and (measure or by_gramian):
                keyed = {str(index): layer for index, layer in group.layers.items()}
                gramians = layer_gramians(self._gradients, keyed)  # (layers of the group, T, T)
                if operator is not None and by_gramian:
                    index = torch.tensor(users, device=gramians.device)
                    gramian = gramians.sum(0)[index[:, None], index]
                    weights = self._apply(operator, users, gramian)  # (n,)
                if measure:
                    if total is None:
                        total = gramians.new_zeros(len(self.layers), *gramians.shape[1:])
                    index = torch.tensor(list(group.layers), device=gramians.device)
                    total.index_add_(0, index, gramians)
            if operator is not None and not by_gramian:
                self._aggregate(operator, users, group)
            else:
                _assign(self._gradients, group, users, weights)
        self._clear()
        return total

    def step(self, forward: Forward | None = None) -> None:
        """Tell a method that learns from it what the optimiser's step did to the losses.

        Args:
            forward: computes losses and features of the last batch anew.
        """
        update = getattr(self.scalariser, "update", None)
        if update is None or forward is None:
            return
        with torch.no_grad():
            losses, _ = forward()
            update(self._fill(losses))

    def end_epoch(self) -> None:
        """Tell a method that looks at epochs that one is over."""
        step = getattr(self.scalariser, "step", None)
        if step is not None:
            step()

    def parameters(self) -> Iterator[nn.Parameter]:
        """What the network's optimiser should learn beside the network."""
        return iter(()) if self.scalariser is None else self.scalariser.parameters()

    def finish(self, model: MultiTaskModel) -> None:
        """Nothing of the method stays in the model."""

    def state_dict(self) -> dict[str, Any]:
        """Return the method's state as plain values."""
        return {
            "last_losses": self._last_losses,
            "scalariser": None if self.scalariser is None else read_state(self.scalariser),
            "operators": [
                [list(users), read_state(operator)] for users, operator in self.operators.items()
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self._last_losses = state["last_losses"].to(self.device)
        if self.scalariser is not None:
            write_state(self.scalariser, state["scalariser"])
        for users, saved in state["operators"]:
            write_state(self._operator(tuple(users)), saved)

    def _create(self, users: tuple[int, ...]) -> nn.Module:
        with self.device:
            tasks = tuple(self.tasks[task] for task in users)
            part: nn.Module = self.method.create(tasks, options=self.options)
        return part

    def _operator(self, users: tuple[int, ...]) -> nn.Module:
        """The method's working part for a set of tasks, made when first asked for."""
        if users not in self.operators:
            self.operators[users] = self._create(users)
        return self.operators[users]

    def _apply(self, operator: nn.Module, users: tuple[int, ...], matrix: Tensor) -> Tensor:
        """Call a weighting with a Gramian (n, n), or an aggregator with a Jacobian (n, P)."""
        if not bool(matrix.isfinite().all()):
            # What is not finite in one row of a Jacobian is in all rows of a Gramian.
            own = matrix.diagonal()[:, None] if self.method.needs == "Gramian" else matrix
            finite = own.isfinite().all(1)  # (n,)
            task = self.tasks[users[int((~finite).nonzero()[0])]]
            raise TrainingError(
                f"Gradients must be finite for method '{self.method.name}', those of task '{task}' "
                "are not, or too large for their precision. Lower train.lr, add train.clip_grad, "
                "or look at the data."
            )
        try:
            result: Tensor = operator(matrix)
        except ValueError as error:
            raise TrainingError(
                f"Method '{self.method.name}' must find a direction for the tasks' gradients, got: "
                f"{error} Change train.options or lower train.lr."
            ) from None
        return parallel.from_first(result)

    def _aggregate(self, operator: nn.Module, users: tuple[int, ...], group: Group) -> None:
        """Set `.grad` from the Jacobian (n, P) of a group; zeros where a loss does not reach."""
        reached = [p for p in group.parameters if any(p in self._gradients[t] for t in users)]
        jacobian = torch.stack(
            [
                torch.cat(
                    [self._gradients[task].get(p, torch.zeros_like(p)).reshape(-1) for p in reached]
                )
                for task in users
            ]
        )
        vector = self._apply(operator, users, jacobian)
        sizes = [parameter.numel() for parameter in reached]
        for parameter, gradient in zip(reached, torch.split(vector, sizes), strict=True):
            parameter.grad = gradient.view_as(parameter)

    def _scalarise(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Multiply each loss by the derivative of the scalariser's value.

        The sum of the results has the gradient of the scalariser's value; the scalariser's own
        parameters get theirs here.
        """
        assert self.scalariser is not None
        values = self._fill(losses).requires_grad_()
        self.scalariser(values).backward()
        assert values.grad is not None
        weights = parallel.from_first(values.grad)
        return {task: loss * weights[self.tasks.index(task)] for task, loss in losses.items()}

    def _fill(self, losses: Mapping[str, Tensor]) -> Tensor:
        """All tasks' loss values (T,), the last known where one is absent."""
        known = [
            losses[task].detach() if task in losses else self._last_losses[index]
            for index, task in enumerate(self.tasks)
        ]
        self._last_losses = parallel.mean([torch.stack(known)])[0]
        return self._last_losses.clone()

    def _clear(self) -> None:
        self._gradients: Gradients = [{} for _ in self.tasks]
        self._gramians = None
        self._present: set[int] = set()


def _assign(
    gradients: Gradients, group: Group, present: tuple[int, ...], weights: Tensor | None
) -> None:
    """Set `.grad` to the weighted sum of the users' gradients; no weights: the plain sum.

    Takes the gradients out of their dicts, so that what is added up is free at once.
    """
    shares = [1.0] * len(present) if weights is None else weights.tolist()
    for parameters in _alike(gradients, group):
        combined: list[Tensor] | None = None
        for task, share in zip(present, shares, strict=True):
            if parameters[0] not in gradients[task]:
                continue
            rows = [gradients[task].pop(p) for p in parameters]
            if combined is None:
                # Autograd may hand out one tensor for two parameters: never change it in place.
                combined = list(torch._foreach_mul(rows, share))
            else:
                torch._foreach_add_(combined, rows, alpha=share)
        for parameter, gradient in zip(parameters, combined or [], strict=True):
            parameter.grad = gradient


def _average(gradients: Gradients) -> None:
    """Average the gradients over the processes, a task at a time."""
    for row in gradients:
        row.update(zip(row, parallel.mean(list(row.values())), strict=True))


def _alike(gradients: Gradients, group: Group) -> list[list[nn.Parameter]]:
    """Divide a group's parameters by the tasks whose loss reached them; others drop out."""
    reached: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
    for parameter in group.parameters:
        users = tuple(task for task in group.users if parameter in gradients[task])
        if users:
            reached[users].append(parameter)
    return list(reached.values())
