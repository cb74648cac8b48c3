"""Joint training and scalarisers: the gradient of one sum of the tasks' losses.

One backward pass is all they need; a measured step takes one a task instead, and its gradient is
the same. A scalariser sees an absent task's last loss, as a constant (1 before the first).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from recon_search import parallel
from recon_search.errors import TrainingError, nearest
from recon_search.methods.gradients import Measurement, add_to_grad, spoil
from recon_search.methods.protocol import Forward, Measure
from recon_search.methods.scaling import Scaling
from recon_search.methods.sharing import Sharing, TaskNetwork
from recon_search.methods.skipping import Skipping, name_fault
from recon_search.methods.state import read_state, write_state


class Joint(Skipping):
    """The plain sum of the losses; a `Surgeon`.

    Args:
        model: whose parameters that require gradients now get theirs.
        sharing: of the model.
        measurement: takes the measured steps.
        scaling: of the losses, which the measurement knows as well.
    """

    name = "joint"

    def __init__(
        self,
        model: TaskNetwork,
        sharing: Sharing,
        measurement: Measurement,
        scaling: Scaling | None = None,
    ) -> None:
        self.scaling = scaling or Scaling()
        self.tasks = tuple(model.tasks)
        self.sharing = sharing
        self.measurement = measurement

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
        """Differentiate one batch and add to `.grad`, at once unless it is measured.

        Scalarisers act on each batch.
        """
        present = check_losses(losses, self.tasks, self.sharing.trainable)
        apart = measured_tasks(measure, self.tasks)
        if not present:
            return
        weighted = self._weigh(present)
        if share != 1:
            weighted = {task: loss * share for task, loss in weighted.items()}
        if apart.intersection(weighted):
            self.measurement.add(weighted, apart)
        else:
            total = torch.stack(list(weighted.values())).sum()
            self._differentiate(total)

    def combine(self, *, measure: Measure = False) -> Tensor | None:
        """Finish the step: as `Surgeon.combine`."""
        parallel.average_gradients(self.sharing.parameters)
        gramians = self.measurement.finish()
        if gramians is not None and not bool(gramians.isfinite().all()):
            spoil(self.sharing.parameters)  # gradients may be finite where their squares are not
            self._skip(name_fault(self.name, self.tasks[first_faulty(gramians.sum(0))]))
            return None
        self._go_on()
        return gramians if measure else None

    def state_dict(self) -> dict[str, Any]:
        """Return the method's state as plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned."""

    def _differentiate(self, total: Tensor) -> None:
        """Add the gradient of a loss to `.grad`."""
        if self.scaling.factor is None:
            total.backward()  # type: ignore[no-untyped-call]
            return
        wanted = self.sharing.parameters
        found = torch.autograd.grad(self.scaling.up(total), wanted, allow_unused=True)
        reached = {p: g for p, g in zip(wanted, found, strict=True) if g is not None}
        for parameter, gradient in zip(
            reached, self.scaling.down([*reached.values()]), strict=True
        ):
            add_to_grad(parameter, gradient)

    def _weigh(self, losses: dict[int, Tensor]) -> dict[int, Tensor]:
        """Return losses whose sum has the method's gradient."""
        return losses


class Scalarised(Joint):
    """A function of the losses' values, such as uncertainty weighting; a `Surgeon`.

    Args:
        model: whose parameters that require gradients now get theirs.
        sharing: of the model.
        measurement: takes the measured steps.
        name: of the method.
        scalariser: maps losses (T,) to one loss, on the model's device.
        scaling: as for `Joint`.
    """

    def __init__(
        self,
        model: TaskNetwork,
        sharing: Sharing,
        measurement: Measurement,
        name: str,
        scalariser: nn.Module,
        scaling: Scaling | None = None,
    ) -> None:
        super().__init__(model, sharing, measurement, scaling)
        self.name = name
        self.scalariser = scalariser
        self._last_losses = torch.ones(len(self.tasks), device=next(model.parameters()).device)

    def step(self, forward: Forward | None = None) -> None:
        """Tell a scalariser that learns from it what the optimiser's step did to the losses."""
        update = getattr(self.scalariser, "update", None)
        if update is None or forward is None:
            return
        with torch.no_grad():
            losses, _ = forward()
            found = {t: losses.get(name) for t, name in enumerate(self.tasks)}
            update(self._fill({t: loss for t, loss in found.items() if loss is not None}))

    def end_epoch(self) -> None:
        """Tell a scalariser that looks at epochs that one is over."""
        step = getattr(self.scalariser, "step", None)
        if step is not None:
            step()

    def parameters(self) -> Iterator[nn.Parameter]:
        """What the scalariser learns."""
        return self.scalariser.parameters()

    def state_dict(self) -> dict[str, Any]:
        """Return the method's state as plain values."""
        return {"last_losses": self._last_losses, "scalariser": read_state(self.scalariser)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self._last_losses = state["last_losses"].to(self._last_losses.device)
        write_state(self.scalariser, state["scalariser"])

    def _weigh(self, losses: dict[int, Tensor]) -> dict[int, Tensor]:
        """Multiply each loss by the derivative of the scalariser's value.

        The sum of the results has the gradient of the scalariser's value; the scalariser's own
        parameters get theirs here.
        """
        values = self._fill(losses).requires_grad_()
        self.scalariser(values).backward()
        assert values.grad is not None
        weights = parallel.from_first(values.grad)
        return {task: loss * weights[task] for task, loss in losses.items()}

    def _fill(self, losses: Mapping[int, Tensor]) -> Tensor:
        """All tasks' loss values (T,), the last known where one is absent."""
        known = [
            losses[task].detach() if task in losses else self._last_losses[task]
            for task in range(len(self.tasks))
        ]
        self._last_losses = parallel.mean([torch.stack(known)])[0]
        return self._last_losses.clone()


def check_losses(
    losses: Mapping[str, Tensor | None], tasks: tuple[str, ...], trainable: Collection[int]
) -> dict[int, Tensor]:
    """Return the losses that are present, by number of the task, in order.

    Absent are tasks that are left out or have None, and those whose loss is a constant because all
    that they use is frozen. A loss that reaches no parameter of the model changes nothing.

    Args:
        losses: one scalar a task.
        tasks: all tasks.
        trainable: numbers of the tasks that have something to train.

    Raises:
        TrainingError: a task is unknown, or a loss is no scalar tensor with a graph.
    """
    for name in losses:
        if name not in tasks:
            raise TrainingError(
                f"The losses must be named after the tasks {list(tasks)}, got {name!r}."
                f"{nearest(str(name), tasks)} Leave a task out, or give None, where it has no loss."
            )
    present = {}
    for index, task in enumerate(tasks):
        loss = losses.get(task)
        if loss is None:
            continue
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            found = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)[:80]
            raise TrainingError(
                f"The loss of task '{task}' must be a scalar tensor, got {found}. Take its mean, "
                "or give None where there is no loss."
            )
        if not loss.requires_grad and index in trainable:
            raise TrainingError(
                f"The loss of task '{task}' must depend on the model, got one without a graph. "
                "Compute it outside torch.no_grad(), do not detach it, or give None."
            )
        if loss.grad_fn is not None:
            present[index] = loss.reshape(()) if loss.ndim else loss
    return present


def measured_tasks(measure: Measure, tasks: tuple[str, ...]) -> frozenset[int]:
    """Return the numbers of the tasks to measure.

    Raises:
        TrainingError: one of those named is unknown.
    """
    if isinstance(measure, bool):
        return frozenset(range(len(tasks)) if measure else ())
    for name in measure:
        if name not in tasks:
            raise TrainingError(
                f"The tasks to measure must be of {list(tasks)}, got {name!r}."
                f"{nearest(str(name), tasks)} Pass True for all."
            )
    return frozenset(tasks.index(name) for name in measure)


def first_faulty(gramian: Tensor) -> int:
    """Return the number of the first task whose gradient is not finite, or too large, (n, n)."""
    faulty = ~gramian.diagonal().isfinite()
    return int((faulty if bool(faulty.any()) else ~gramian.isfinite().all(1)).nonzero()[0])
