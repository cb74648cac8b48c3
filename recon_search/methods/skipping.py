"""What surgeons have in common: hooks that do nothing, and steps that are skipped.

Gradients overflow in the first steps of float16 training under a scaler.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import nn

from recon_search.errors import TrainingError

if TYPE_CHECKING:
    from recon_search.methods.protocol import Forward
    from recon_search.methods.sharing import TaskNetwork

PATIENCE = 64
"""Skipped steps in a row after which it is no overflow: a scaler has long found its scale."""


class Skipping:
    """Learns nothing by itself, and counts the steps whose gradients are not finite.

    Such a step leaves gradients in `.grad` that are not finite, for `torch.amp.GradScaler` to skip
    it, changes no state of the method, and is not measured.

    Attributes:
        n_skipped: steps skipped since the surgeon was made.
        fault: what was wrong with the last step, in one line; None if nothing was.
    """

    n_skipped = 0
    fault: str | None = None
    _in_a_row = 0

    def step(self, forward: Forward | None = None) -> None:
        """Nothing is learned from a step."""

    def end_epoch(self) -> None:
        """Nothing happens at the end of an epoch."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Nothing beside the network is learned."""
        return iter(())

    def finish(self, model: TaskNetwork) -> None:
        """Nothing of the method stays in the model."""

    def _skip(self, fault: str) -> None:
        """Count a step.

        Raises:
            TrainingError: so many in a row are no overflow.
        """
        self.n_skipped += 1
        self.fault = fault
        self._in_a_row += 1
        if self._in_a_row >= PATIENCE:
            raise TrainingError(f"{fault} So it was in {self._in_a_row} steps in a row.")

    def _go_on(self) -> None:
        """Note a step with nothing wrong."""
        self.fault = None
        self._in_a_row = 0


def name_fault(method: str, task: str) -> str:
    """Say which task's gradients a method cannot use."""
    return (
        f"Gradients must be finite for method '{method}', those of task '{task}' are not, or too "
        "large for their precision. Lower the learning rate, clip gradients, or look at the data."
    )
