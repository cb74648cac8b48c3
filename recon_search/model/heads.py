"""Heads: from the features of a backbone to a task's output."""

from __future__ import annotations

from torch import nn

from recon_search.errors import RecipeError
from recon_search.imports import call
from recon_search.recipe import HeadConfig

ACTIVATIONS = {"none": nn.Identity, "relu": nn.ReLU, "gelu": nn.GELU}


def create_head(config: HeadConfig, width: int, n_outputs: int) -> nn.Module:
    """Create a head: the features' activation, then a linear layer or an MLP; or one's own.

    Args:
        config: what head. A `kind` "package.module:name" is called with width, number of outputs
            and `args` by keyword, and returns a module.
        width: d of the features (B, d).
        n_outputs: numbers that the head gives.

    Raises:
        RecipeError: a head of one's own cannot be imported, called so, or is no module.
    """
    if config.is_own:
        head = call(config.kind, "`head.kind`", width, n_outputs, **config.args)
        if not isinstance(head, nn.Module):
            raise RecipeError(
                f"`head.kind` must make a torch.nn.Module, {config.kind} made "
                f"{type(head).__name__}. Return one."
            )
        return head
    parts: list[nn.Module] = [ACTIVATIONS[config.activation]()]
    if config.kind == "mlp":
        parts += [nn.Linear(width, config.hidden), nn.ReLU()]
        width = config.hidden
    return nn.Sequential(*parts, nn.Linear(width, n_outputs))
