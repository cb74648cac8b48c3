"""float16 training: torch's `GradScaler` around a surgeon, which sees true gradients."""

from __future__ import annotations

from typing import Any

import torch

from recon_search.errors import TrainingError
from recon_search.methods.protocol import Surgeon
from recon_search.recipe import TrainConfig

LEAST = 2.0**-40
"""A scale below which it is not the scale that makes gradients overflow."""


class Scaler:
    """Scales losses up, and skips steps whose gradients overflow, as `GradScaler` does.

    Args:
        device: of the losses.
    """

    def __init__(self, device: torch.device) -> None:
        self._scaler = torch.amp.GradScaler(device.type)
        self._one = torch.ones((), device=device)

    def begin(self, surgeon: Surgeon) -> None:
        """Scale the losses of the step that begins."""
        self._factor = self._scaler.scale(self._one)
        surgeon.scaling.factor = self._factor

    def settle(self, optimizer: torch.optim.Optimizer) -> None:
        """Look whether gradients overflowed; they are as they were, whatever is done with them."""
        held = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        if held:
            torch._foreach_mul_(held, self._factor)  # a surgeon has divided by it already
            self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the optimiser step unless they did, and adapt the scale."""
        if any(p.grad is not None for g in optimizer.param_groups for p in g["params"]):
            self._scaler.step(optimizer)
            self._scaler.update()

    def check(self, n_updates: int) -> None:
        """Make sure that steps are taken.

        Raises:
            TrainingError: the scale has fallen so far that no gradient can be at fault.
        """
        if (scale := self._scaler.get_scale()) < LEAST:
            raise TrainingError(
                "Gradients must be finite in float16 at some scale of the losses, by update "
                f"{n_updates} they are not at {scale:.1e}. Lower train.lr, set train.precision to "
                '"bfloat16", or look at the data.'
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the scale and since when it holds."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self._scaler.load_state_dict(state)


def create_scaler(device: torch.device, config: TrainConfig) -> Scaler | None:
    """Make the scaler that a precision needs, if it does."""
    return Scaler(device) if config.precision == "float16" else None
