"""Steps whose gradients overflowed, as the first steps of float16 training under a scaler do."""

from __future__ import annotations

from recon_search.errors import TrainingError

PATIENCE = 64
"""Skipped steps in a row after which it is no overflow: a scaler has long found its scale."""


class Skipping:
    """Counts the steps in which a method found gradients that are not finite.

    Such a step leaves gradients in `.grad` that are not finite, for `torch.amp.GradScaler` to skip
    it, changes no state of the method, and is not measured.

    Attributes:
        n_skipped: steps skipped since the surgeon was made.
        fault: what was wrong with the last step, in one line; None if nothing was.
    """

    n_skipped = 0
    fault: str | None = None
    _in_a_row = 0

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
