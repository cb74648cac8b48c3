"""Gradient methods: what tasks share gets a combination of their gradients.

A Gramian weighting maps the (T, T) Gramian of the tasks' gradients to task weights w; the shared
gradient is sum_t w_t g_t. PCGrad (arXiv 2001.06782, Algorithm 1) is exact this way, because each
projected gradient is a combination of the tasks' gradients whose coefficients follow from inner
products alone. Methods that need more get the Jacobian of what is shared.

**Who shares what** (see `sharing`). Parameters that exactly the same tasks use are combined as one
set, whether they belong to layers, to heads or to something else; what only one task uses gets that
task's gradient.

**Absent tasks.** A task without a loss in a step takes no part in it: what it shares is combined
among the tasks that are present. A stateful method has one state for each set of tasks it ever
combined.

**Many tasks** (see `Sampling`). Where a method's paper samples tasks, so can a step: only of those
drawn are the gradients known one by one. Measuring changes nothing of what is trained.

**Several processes** (see `parallel`). The tasks' gradients are averaged over the processes before
a method sees them: a method on each process's own would be another one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recon_search import parallel
from recon_search.conflict.gramian import layer_gramians
from recon_search.errors import RecipeError, TrainingError
from recon_search.methods.gradients import TaskGradients, add_to_grad, spoil
from recon_search.methods.losses import check_losses, first_faulty, measured_tasks
from recon_search.methods.protocol import Measure
from recon_search.methods.registry import find_method
from recon_search.methods.sampling import Sampling
from recon_search.methods.scaling import Scaling
from recon_search.methods.sharing import Group, Sharing, TaskNetwork
from recon_search.methods.skipping import Skipping, name_fault
from recon_search.methods.state import read_state, write_state


class GradientCombiner(Skipping):
    """A method on the tasks' Gramian or on their full gradients; a `Surgeon`.

    Args:
        model: whose parameters that require gradients now get theirs.
        method: the method's name.
        options: of the method.

    Attributes:
        operators: the method's working part for each set of tasks that it combined.

    Raises:
        RecipeError: the method is none of these, an option is unknown, too few tasks share
            parameters, or an optional package is missing.
        TrainingError: the model is no `TaskNetwork`.
    """

    def __init__(
        self, model: TaskNetwork, method: str, options: Mapping[str, Any] | None = None
    ) -> None:
        self.method = find_method(method)
        if self.method.needs not in ("Gramian", "gradients"):
            raise RecipeError(
                f"GradientCombiner takes a method on Gramians or gradients, got '{method}', which "
                f"needs {self.method.needs}. Use create_surgeon, which takes every method."
            )
        self.options = self.method.complete(options or {})
        self.sharing = Sharing(model)
        self.tasks = tuple(model.tasks)
        self.device = next(model.parameters()).device
        self.operators: dict[tuple[int, ...], nn.Module] = {}
        self.sampling: Sampling | None = None
        n = self.options.get("tasks_per_step", 0)
        if self.method.others is not None and 0 < n < len(self.tasks):
            self.sampling = Sampling(len(self.tasks), n, self.method.others)
        for users in self.sharing.sets:
            if len(users) > 1:
                self._operator(users)
        layers = self.sharing.layers
        self.scaling = Scaling()
        self._gradients = TaskGradients(
            self.sharing.parameters, layers, len(self.tasks), self.scaling
        )

    def backward(
        self, losses: Mapping[str, Tensor | None], features: Any = None, measure: Measure = False
    ) -> Tensor | None:
        """Differentiate the losses of a step of one batch: as `Surgeon.backward`."""
        self.accumulate(losses, measure=measure)
        return self.combine(measure=measure)

    def accumulate(
        self,
        losses: Mapping[str, Tensor | None],
        features: Any = None,
        *,
        share: float = 1.0,
        measure: Measure = False,
    ) -> None:
        """Differentiate one batch; the tasks' gradients add up until `combine`."""
        present = check_losses(losses, self.tasks, self.sharing.trainable)
        apart: Collection[int] = present
        if self.sampling is not None:
            apart = self.sampling.divide(present, measured_tasks(measure, self.tasks))
        if present:
            if share != 1:
                present = {task: loss * share for task, loss in present.items()}
            self._gradients.add(present, apart)

    def combine(self, *, measure: Measure = False) -> Tensor | None:
        """Combine the tasks' gradients and add to `.grad`: as `Surgeon.combine`.

        Raises:
            TrainingError: the method finds no direction.
        """
        if not self._gradients.present:
            self._end()
            self._go_on()
            return None
        self._gradients.average()
        reached = self._gradients.of_tasks
        if self.sampling is not None:
            reached = self.sampling.reached(self._gradients.rows, self.sharing.declared)
        groups = self.sharing.groups(reached, self._gradients.present)
        gramians = self._gramians(groups, every=bool(measure))
        fault = self._find_fault(groups, gramians)
        for number, group in enumerate(groups):
            if fault is None:
                self._give(group, gramians.get(number))
            else:
                self._gradients.give(group.parameters, self._rows(group))
        whole = self._whole(groups, gramians) if measure and fault is None else None
        self._end()
        if fault is None:
            self._go_on()
        else:
            spoil(self.sharing.parameters)  # gradients may be finite where their squares are not
            self._skip(fault)
        return whole

    def state_dict(self) -> dict[str, Any]:
        """Return the method's state as plain values."""
        return {
            "operators": [
                [list(users), read_state(operator)] for users, operator in self.operators.items()
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        for users, saved in state["operators"]:
            write_state(self._operator(tuple(users)), saved)

    def _operator(self, users: tuple[int, ...]) -> nn.Module:
        """The method's working part for a set of tasks, made when first asked for."""
        if users not in self.operators:
            with self.device:
                tasks = tuple(self.tasks[task] for task in users)
                self.operators[users] = self.method.create(tasks, options=self.options)
        return self.operators[users]

    def _end(self) -> None:
        """Forget the step."""
        self._gradients.clear()
        if self.sampling is not None:
            self.sampling.end()

    def _present(self, group: Group) -> tuple[int, ...]:
        """The users of a group that had a loss."""
        return tuple(task for task in group.users if task in self._gradients.present)

    def _rows(self, group: Group) -> Sequence[int]:
        """The numbers of the gradients that add up to what a group's losses give."""
        return self._present(group) if self.sampling is None else range(len(self.tasks) + 1)

    def _gramians(self, groups: Sequence[Group], *, every: bool) -> dict[int, Tensor]:
        """Gramians (n, T, T) by number of the group: of those that the method needs, or of every.

        One for each layer of the group, and where the method needs it a last one for the others.
        Where tasks are sampled, the sum of those that were not is one more, (n, T + 1, T + 1).
        """
        found = {}
        rows = self._gradients.of_tasks if self.sampling is None else self._gradients.rows
        for number, group in enumerate(groups):
            is_wanted = self.method.needs == "Gramian" and len(self._present(group)) > 1
            if is_wanted or (every and group.layers):
                sets = {str(index): layer for index, layer in group.layers.items()}
                if is_wanted and group.others:
                    sets["others"] = group.others
                found[number] = layer_gramians(rows, sets)
        return found

    def _find_fault(self, groups: Sequence[Group], gramians: Mapping[int, Tensor]) -> str | None:
        """Say whose gradients cannot be combined or measured, if any cannot."""
        sums = [gramian.sum(0) for gramian in gramians.values()]  # (T, T) each
        if sums and not bool(torch.stack(sums).isfinite().all()):
            faulty = next(gramian for gramian in sums if not bool(gramian.isfinite().all()))
            names = [*self.tasks, "one that was not drawn"]
            return name_fault(self.method.name, names[first_faulty(faulty)])
        if self.method.needs == "Gramian":
            return None
        looked_at = [
            (task, self._gradients.rows[task][parameter])
            for group in groups
            if len(self._present(group)) > 1
            for task in self._present(group)
            for parameter in group.parameters
            if parameter in self._gradients.rows[task]
        ]
        if not looked_at:
            return None
        faulty = ~torch.stack([gradient.isfinite().all() for _, gradient in looked_at])
        if not bool(faulty.any()):
            return None
        return name_fault(self.method.name, self.tasks[looked_at[int(faulty.nonzero()[0])][0]])

    def _give(self, group: Group, gramians: Tensor | None) -> None:
        """Add a group's combined gradient to `.grad`."""
        users = self._present(group)
        if len(users) > 1 and self.method.needs == "gradients":
            self._aggregate(users, group)
            return
        weights = None
        if self.sampling is not None:
            weights = self._weigh(self.sampling, users, gramians, group.parameters[0])
        elif len(users) > 1:
            assert gramians is not None
            index = torch.tensor(users, device=gramians.device)
            weights = self._apply(users, gramians.sum(0)[index[:, None], index])  # (n,)
        self._gradients.give(group.parameters, self._rows(group), weights)

    def _weigh(
        self, sampling: Sampling, users: tuple[int, ...], gramians: Tensor | None, like: Tensor
    ) -> Tensor:
        """Return the weights (T + 1,) of a group's gradients, the last of those not drawn."""
        if gramians is None or len(users) < 2:
            return sampling.mix(users, like).sum(0)
        gramian = gramians.sum(0)
        mix = sampling.mix(users, gramian)  # (m, T + 1)
        if not len(mix):
            return gramian.new_zeros(len(gramian))
        return self._apply(users, mix @ gramian @ mix.T) @ mix

    def _aggregate(self, users: tuple[int, ...], group: Group) -> None:
        """Add to `.grad` from the Jacobian (n, P) of a group; zeros where no loss reaches."""
        rows = [self._gradients.rows[task] for task in users]
        jacobian = torch.stack(
            [
                torch.cat([row.get(p, torch.zeros_like(p)).reshape(-1) for p in group.parameters])
                for row in rows
            ]
        )
        vector = self._apply(users, jacobian)
        sizes = [parameter.numel() for parameter in group.parameters]
        for parameter, gradient in zip(group.parameters, torch.split(vector, sizes), strict=True):
            add_to_grad(parameter, gradient.view_as(parameter))

    def _apply(self, users: tuple[int, ...], matrix: Tensor) -> Tensor:
        """Call a weighting with a Gramian (n, n), or an aggregator with a Jacobian (n, P)."""
        try:
            result: Tensor = self._operator(users)(matrix)
        except ValueError as error:
            raise TrainingError(
                f"Method '{self.method.name}' must find a direction for the tasks' gradients, got: "
                f"{error} Change the method's options or lower the learning rate."
            ) from None
        return parallel.from_first(result)

    def _whole(self, groups: Sequence[Group], gramians: Mapping[int, Tensor]) -> Tensor | None:
        """The Gramians (L, T, T) of all layers, which several groups may have a part in."""
        whole: Tensor | None = None
        for number, group in enumerate(groups):
            if number in gramians and group.layers:
                n = len(self.tasks)
                own = gramians[number][: len(group.layers), :n, :n]
                if whole is None:
                    whole = own.new_zeros(len(self.sharing.layers), *own.shape[1:])
                whole.index_add_(0, torch.tensor(list(group.layers), device=own.device), own)
        return whole
