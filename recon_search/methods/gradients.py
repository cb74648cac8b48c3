"""The tasks' gradients of one step: added up over its batches, measured, given to `.grad`."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from recon_search import parallel
from recon_search.conflict.gramian import Gradients, layer_gramians, task_gradients
from recon_search.conflict.lockstep import lockstep_gramians
from recon_search.conflict.sketch import Sketch, Sketches
from recon_search.errors import TrainingError
from recon_search.methods.scaling import Scaling

Layers = Mapping[str, Sequence[nn.Parameter]]


class Measurement(Protocol):
    """Measures a step whose gradient is the plain sum of the tasks'."""

    def add(self, losses: Mapping[int, Tensor], apart: Collection[int]) -> None:
        """Differentiate one batch's losses, by number of the task.

        Args:
            losses: one scalar a task.
            apart: the tasks measured, one backward pass each; the others take one in all.
        """

    def finish(self) -> Tensor | None:
        """Add to `.grad` and return (L, T, T), None if nothing was added; forgets everything."""


class TaskGradients:
    """Keeps one set of gradients a task until the step is over.

    Args:
        parameters: what to differentiate for.
        layers: the parameters of each layer, L in all.
        n_tasks: T.
        scaling: of the losses while they are differentiated; None for none.

    Attributes:
        rows: one dict a task, and a last one for the sum of the losses that were not kept apart.
        present: the tasks that had a loss.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        layers: Layers,
        n_tasks: int,
        scaling: Scaling | None = None,
    ) -> None:
        self.scaling = scaling or Scaling()
        self.parameters = list(parameters)
        self.layers = layers
        self.n_tasks = n_tasks
        self.clear()

    @property
    def of_tasks(self) -> Gradients:
        """The rows of the T tasks."""
        return self.rows[: self.n_tasks]

    def add(self, losses: Mapping[int, Tensor], apart: Collection[int]) -> None:
        """Differentiate one batch's losses: as `Measurement.add`."""
        by_row, rest = _divide(losses, apart)
        self.present.update(losses)
        if rest is not None:
            by_row[self.n_tasks] = rest
        scaled = [self.scaling.up(loss) for loss in by_row.values()]
        found = task_gradients(scaled, [self.parameters] * len(by_row))
        for row, gradients in zip(by_row, found, strict=True):
            total = self.rows[row]
            true = self.scaling.down(list(gradients.values()))
            for parameter, gradient in zip(gradients, true, strict=True):
                # Autograd may hand out one tensor for two parameters: never add in place.
                known = total.get(parameter)
                total[parameter] = gradient if known is None else known + gradient

    def average(self) -> None:
        """Average over the processes, a task at a time."""
        for row in self.rows:
            row.update(zip(row, parallel.mean(list(row.values())), strict=True))

    def give(
        self, parameters: Iterable[nn.Parameter], rows: Sequence[int], weights: Tensor | None = None
    ) -> None:
        """Add a weighted sum of rows to `.grad`; no weights: the plain sum.

        Takes the gradients out of the rows, so that what is added up is free at once.
        """
        shares = [1.0] * len(rows) if weights is None else weights.tolist()
        for alike in self._alike(parameters, rows):
            combined: list[Tensor] | None = None
            for row, share in zip(rows, shares, strict=True):
                if alike[0] not in self.rows[row]:
                    continue
                gradients = [self.rows[row].pop(parameter) for parameter in alike]
                if combined is None:
                    # Autograd may hand out one tensor for two parameters: never change it in place.
                    combined = list(torch._foreach_mul(gradients, share))
                else:
                    torch._foreach_add_(combined, gradients, alpha=share)
            for parameter, gradient in zip(alike, combined or [], strict=True):
                add_to_grad(parameter, gradient)

    def finish(self) -> Tensor | None:
        """Add the plain sum to `.grad` and measure: as `Measurement.finish`."""
        if not self.present:
            return None
        self.average()
        gramians = layer_gramians(self.of_tasks, self.layers)
        self.give(self.parameters, range(self.n_tasks + 1))
        self.clear()
        return gramians

    def clear(self) -> None:
        """Forget everything."""
        self.rows: Gradients = [{} for _ in range(self.n_tasks + 1)]
        self.present: set[int] = set()

    def _alike(
        self, parameters: Iterable[nn.Parameter], rows: Sequence[int]
    ) -> list[list[nn.Parameter]]:
        """Divide parameters by the rows that reached them; those that none reached drop out."""
        reached: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
        for parameter in parameters:
            by = tuple(row for row in rows if parameter in self.rows[row])
            if by:
                reached[by].append(parameter)
        return list(reached.values())


class LockstepGradients:
    """Keeps no gradients but `.grad` (see `lockstep_gramians`), for steps of one batch."""

    def __init__(self, layers: Layers, n_tasks: int) -> None:
        self.layers = layers
        self.n_tasks = n_tasks
        self._gramians: Tensor | None = None

    def add(self, losses: Mapping[int, Tensor], apart: Collection[int]) -> None:
        """Differentiate one batch's losses: as `Measurement.add`.

        Raises:
            TrainingError: the step has had a batch already.
        """
        if self._gramians is not None:
            raise TrainingError(
                "A step that is measured in low memory must be of one batch, got a second one. "
                "Measure without low memory, or do not accumulate batches."
            )
        by_task, rest = _divide(losses, apart)
        stack = list(by_task.values()) + ([] if rest is None else [rest])
        gramians = lockstep_gramians(stack, self.layers)  # (L, n, n), n with the rest
        n = len(by_task)
        index = torch.tensor(list(by_task), device=gramians.device)
        whole = gramians.new_zeros(len(gramians), self.n_tasks, self.n_tasks)
        whole[:, index[:, None], index] = gramians[:, :n, :n]
        self._gramians = whole

    def finish(self) -> Tensor | None:
        """Return what was measured: as `Measurement.finish`."""
        gramians, self._gramians = self._gramians, None
        return gramians


class SketchedGradients:
    """Keeps a sketch of each task's gradients, and `.grad`, to which these are added at once.

    Gradients go into the sketch as they arrive, one parameter's at a time. With a factor on the
    losses one task's set exists at a time.

    Args:
        parameters: what to differentiate for.
        blocks: by layer, L in all, the parameters of each copy.
        n_tasks: T.
        sketch: projects the gradients.
        scaling: of the losses while they are differentiated.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        blocks: Sequence[Iterable[Sequence[nn.Parameter]]],
        n_tasks: int,
        sketch: Sketch,
        scaling: Scaling,
    ) -> None:
        self.parameters = list(parameters)
        self.sketches = Sketches(sketch, blocks, n_tasks)
        self.scaling = scaling

    def add(self, losses: Mapping[int, Tensor], apart: Collection[int]) -> None:
        """Differentiate one batch's losses: as `Measurement.add`."""
        by_task, rest = _divide(losses, apart)
        for number, (task, loss) in enumerate(by_task.items(), start=1):
            keep = number < len(by_task) or rest is not None
            if self.scaling.factor is None:
                self._descend(task, loss, retain_graph=keep)
            else:
                self._descend_scaled(task, loss, retain_graph=keep)
        if rest is not None and self.scaling.factor is None:
            torch.autograd.backward(rest, inputs=self.parameters)
        elif rest is not None:
            self._descend_scaled(None, rest, retain_graph=False)

    def finish(self) -> Tensor | None:
        """Return what was measured: as `Measurement.finish`."""
        kept = self.sketches.kept
        if not kept:
            return None
        places = sorted(kept)
        kept.update(zip(places, parallel.mean([kept[place] for place in places]), strict=True))
        gramians = self.sketches.gramians(like=next(iter(kept.values())))
        self.sketches.clear()
        self.sketches.sketch.step += 1
        return gramians

    def _descend(self, task: int, loss: Tensor, *, retain_graph: bool) -> None:
        """Add a loss's gradient to `.grad`; a hook sees each parameter's on its way there."""
        hooks = []
        for parameter in self.parameters:
            take = functools.partial(self.sketches.take, task, parameter)
            hooks.append(parameter.register_hook(take))  # type: ignore[no-untyped-call]
        try:
            torch.autograd.backward(loss, inputs=self.parameters, retain_graph=retain_graph)
        finally:
            for hook in hooks:
                hook.remove()

    def _descend_scaled(self, task: int | None, loss: Tensor, *, retain_graph: bool) -> None:
        (found,) = task_gradients(
            [self.scaling.up(loss)], [self.parameters], retain_graph=retain_graph
        )
        true = dict(zip(found, self.scaling.down([*found.values()]), strict=True))
        if task is not None:
            self.sketches.take_all(task, true)
        for parameter, gradient in true.items():
            add_to_grad(parameter, gradient)


def add_to_grad(parameter: nn.Parameter, gradient: Tensor) -> None:
    """Add to `.grad`, not in place: others may hold the tensor."""
    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def spoil(parameters: Iterable[nn.Parameter]) -> None:
    """Make every `.grad` not a number, for whoever steps to notice."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = torch.full_like(parameter.grad, torch.nan)


def _divide(
    losses: Mapping[int, Tensor], apart: Collection[int]
) -> tuple[dict[int, Tensor], Tensor | None]:
    """Return the losses to differentiate apart, and the sum of the others."""
    others = [loss for task, loss in losses.items() if task not in apart]
    own = {task: loss for task, loss in losses.items() if task in apart}
    return own, torch.stack(others).sum() if others else None
