"""What a training loop asks of a method, whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from recon_search.methods.scaling import Scaling
from recon_search.methods.sharing import TaskNetwork

Forward = Callable[[], tuple[Mapping[str, Tensor | None], Any]]
"""Computes a batch's losses and features, by task."""

Measure = bool | Collection[str]
"""Whether to measure, or the tasks to measure: each costs a backward pass, the others one in all.
Rows and columns of the others are zero in the Gramians; the gradient is that of all. Methods that
need every task's gradient measure every task; where they sample tasks, those drawn as well."""


class Surgeon(Protocol):
    """What a training loop asks of a method.

    In this order: `backward`, or for a step of several batches `accumulate` for each and then
    `combine`; the optimiser's step; `step`. After an epoch's last step `end_epoch`; at the end of
    training `finish`. Gradients are added to `.grad`, as torch does.

    **Loss scaling** (`torch.amp.GradScaler`, for float16). Set `scaling.factor` before the step,
    and the method sees true losses and true gradients, which it leaves in `.grad` (see `Scaling`;
    not in low memory). Or scale every loss alike:
    `backward({task: scaler.scale(loss) ...})`, then `scaler.unscale_`, `scaler.step`, `step`. A
    step whose gradients overflow leaves gradients that are not finite, so that the scaler skips
    it; it is counted and not measured. Gramians are those of the scaled losses, the square of the
    scale too large: divide by it. Cosines, and the weights of all methods on Gramians or gradients
    that set no absolute size (all but `nash-mtl`, `fairgrad`, `cagrad` and `gradvac` near zero
    gradients, `pcd` and `excess-mtl`, which remember sizes), do not change. Scalarisers and
    `normalize_losses` of RotoGrad look at the losses' values and must not have them scaled.

    Attributes:
        n_skipped: steps whose gradients were found not to be finite. Joint training and scalarisers
            look at the gradients of measured steps only.
        fault: what was wrong with the last step, in one line; None if nothing was.
        scaling: what losses are multiplied by while they are differentiated.
    """

    n_skipped: int
    fault: str | None
    scaling: Scaling

    def backward(
        self,
        losses: Mapping[str, Tensor | None],
        features: Mapping[str, Tensor] | None = None,
        measure: Measure = False,
    ) -> Tensor | None:
        """Differentiate the losses of a step of one batch and add to `.grad`.

        Args:
            losses: one scalar a task; tasks may be left out or None.
            features: what each task's head read, which RotoGrad asks for. None: what the heads have
                read since the last step, which it has kept until now.
            measure: return the Gramians of this step; costs nothing where the method needs them.

        Returns:
            The layers' Gramians (L, T, T) if asked for, layers in graph order; None in a step
            without any loss or with gradients that are not finite. Tasks with private copies of a
            layer have inner product zero there, and absent tasks zero rows.

        Raises:
            TrainingError: a loss is no scalar with a graph or of no task, or features do not fit.
        """

    def accumulate(
        self,
        losses: Mapping[str, Tensor | None],
        features: Mapping[str, Tensor] | None = None,
        *,
        share: float = 1.0,
        measure: Measure = False,
    ) -> None:
        """Differentiate one of the batches of a step: as `backward`.

        Args:
            losses: one scalar a task; tasks may be left out or None.
            features: what each task's head read.
            share: the weight of this batch, 1 / n for the mean over n.
            measure: keep what Gramians need; the same for all batches of a step.
        """

    def combine(self, *, measure: Measure = False) -> Tensor | None:
        """Finish the step and return its Gramians: as `backward`."""

    def step(self, forward: Forward | None = None) -> None:
        """Learn from the optimiser's step; `forward` computes the last batch's losses anew."""

    def end_epoch(self) -> None:
        """Learn from the end of an epoch."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Parameters for the network's optimiser."""

    def finish(self, model: TaskNetwork) -> None:
        """Leave the model as it is deployed."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned."""
