"""One object that takes a step's losses to gradients, whatever the method needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from torch import nn

from recon_search.errors import RecipeError
from recon_search.methods.combiner import Forward, GradientCombiner
from recon_search.methods.registry import find_method
from recon_search.methods.rotograd import Combiner
from recon_search.model.network import MultiTaskModel


class Surgeon(Combiner, Protocol):
    """What the loop asks of a method.

    In this order: `accumulate` for each batch of a step, `combine`, the optimiser's step, `step`;
    after an epoch's last batch `end_epoch`; at the end of training `finish`.
    """

    def step(self, forward: Forward | None = None) -> None:
        """Learn from the optimiser's step; `forward` computes the last batch's losses anew."""

    def end_epoch(self) -> None:
        """Learn from the end of an epoch."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Parameters for the network's optimiser."""

    def finish(self, model: MultiTaskModel) -> None:
        """Leave the model as it is deployed."""


def create_surgeon(
    model: MultiTaskModel,
    method: str,
    options: Mapping[str, Any] | None = None,
    *,
    low_memory: bool = False,
) -> Surgeon:
    """Make a method work on a model, which RotoGrad gives rotations.

    Args:
        model: the model.
        method: the method's name.
        options: of the method.
        low_memory: as `GradientCombiner` takes it.

    Raises:
        RecipeError: the method or an option is unknown or does not fit, or a package is missing.
    """
    entry = find_method(method)
    if entry.needs != "features":
        return GradientCombiner(model, method, options, low_memory=low_memory)
    complete = entry.complete(options or {})
    inner = find_method(complete["weighting"])
    if inner.needs in ("losses", "features"):
        raise RecipeError(
            f"`train.options.weighting` must be 'joint' or a method on gradients, got "
            f"'{inner.name}'. Name one that `recon-search ls methods` lists under Gramian."
        )
    combiner = GradientCombiner(model, inner.name, low_memory=low_memory)
    surgeon: Surgeon = entry.create(model, combiner, options=complete)
    return surgeon
