"""An exponential moving average of the weights, which is what is evaluated and kept."""

from __future__ import annotations

from typing import Any

import torch
from timm.utils import ModelEmaV3

from recon_search.model.network import MultiTaskModel
from recon_search.model.rotation import RotatedHead
from recon_search.recipe import TrainConfig


class Average:
    """timm's average of a model: parameters and floating-point buffers, so of statistics as well.

    Args:
        model: as it begins.
        decay: weight of what was, in every update.
        warmup: let the decay grow from 0 to that: 1 - (1 + n)^(-2/3) after n updates. Without, the
            first update takes the weights as they are and `decay` holds from the second on.
    """

    def __init__(self, model: MultiTaskModel, decay: float, *, warmup: bool) -> None:
        self._average = ModelEmaV3(model, decay=decay, use_warmup=warmup)
        self.model.requires_grad_(False)

    @property
    def model(self) -> MultiTaskModel:
        """A copy of the model that holds the average, in eval mode."""
        module: Any = self._average.module
        assert isinstance(module, MultiTaskModel)
        return module

    def update(self, model: MultiTaskModel, n_updates: int) -> None:
        """Take in the weights after an update, the `n_updates`-th since training began."""
        self._average.update(model, step=n_updates)

    @torch.no_grad()
    def end_epoch(self) -> None:
        """Make the averages of rotations the nearest rotations, for a mean of some is none."""
        for head in self.model.heads.values():
            if isinstance(head, RotatedHead):
                u, _, v = torch.linalg.svd(head.rotation.double())
                head.rotation.copy_(u @ v)

    def state_dict(self) -> dict[str, Any]:
        """Return the average as plain tensors."""
        state: dict[str, Any] = self.model.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self.model.load_state_dict(state)


def create_average(model: MultiTaskModel, config: TrainConfig) -> Average | None:
    """Make the average that a recipe asks for, if it does."""
    return None if config.ema is None else Average(model, config.ema, warmup=config.ema_warmup)
