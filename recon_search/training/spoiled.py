"""Steps that are left out because a loss or a gradient in them is not finite."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from recon_search import parallel
from recon_search.errors import TrainingError
from recon_search.methods.skipping import PATIENCE
from recon_search.model.network import MultiTaskModel


class Spoiled:
    """Watches over the steps of a training with `train.non_finite = "skip"`.

    A step in which a loss or a gradient is not finite changes neither weights nor the running
    statistics of norms, which its images may have spoiled. Nothing is learned from it, by the
    optimiser or by the method. All processes leave out the same steps.

    Args:
        model: that is trained.

    Attributes:
        n_skipped: steps that were left out in this epoch.
        reason: why the present step is; "" if nothing is wrong so far.
    """

    def __init__(self, model: MultiTaskModel) -> None:
        self._model = model
        self._buffers = [each for each in model.buffers() if each.is_floating_point()]
        self._before: list[Tensor] = []
        self._in_a_row = 0
        self.n_skipped = 0
        self.reason = ""

    def begin(self) -> None:
        """Remember what a forward pass changes."""
        self._before = [each.clone() for each in self._buffers]
        self.reason = ""

    def look_at_losses(self, losses: Mapping[str, Tensor]) -> None:
        """Look at the losses of a batch, by task."""
        if not losses:
            return
        values = torch.stack([loss.detach().float() for loss in losses.values()])
        finite = parallel.mean([values])[0].isfinite()
        if not bool(finite.all()):
            task = list(losses)[int((~finite).nonzero()[0])]
            self.reason = f"the loss of task '{task}' is not finite"

    def look_at_gradients(self) -> None:
        """Look at the gradients that the step has come to."""
        if name := faulty_gradient(self._model):
            self.reason = f"the gradient of '{name}' is not finite"

    def leave_out(self, number: int) -> None:
        """Put back what the step has changed, and count it.

        Raises:
            TrainingError: so many in a row are no accident.
        """
        for now, before in zip(self._buffers, self._before, strict=True):
            now.copy_(before)
        self.n_skipped += 1
        self._in_a_row += 1
        if self._in_a_row >= PATIENCE:
            raise TrainingError(
                f'`train.non_finite` = "skip" is for a step now and then, at step {number} '
                f"{self.reason}, and so it was in {self._in_a_row} steps in a row. Lower train.lr, "
                "add train.clip_grad, or look at the data."
            )

    def record(self) -> dict[str, int]:
        """What an epoch's record says of steps that were left out, if any were."""
        return {"skipped": self.n_skipped} if self.n_skipped else {}

    def go_on(self) -> None:
        """Note a step with nothing wrong."""
        self._in_a_row = 0


def faulty_gradient(model: MultiTaskModel) -> str:
    """Name the first parameter whose gradient is not finite; "" if there is none."""
    named = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    if not named:
        return ""
    norms = torch.stack(torch._foreach_norm([gradient for _, gradient in named]))
    if bool(norms.isfinite().all()):
        return ""
    # A norm may overflow where no number does.
    return next((name for name, gradient in named if not bool(gradient.isfinite().all())), "")
