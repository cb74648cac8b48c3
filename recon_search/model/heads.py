"""Heads: from the features of a backbone to a task's output."""

from __future__ import annotations

from torch import nn

from recon_search.recipe import HeadConfig


def create_head(config: HeadConfig, width: int, n_outputs: int) -> nn.Sequential:
    """Create a head: the features' activation, then a linear layer or an MLP."""
    activations = {"none": nn.Identity, "relu": nn.ReLU, "gelu": nn.GELU}
    parts: list[nn.Module] = [activations[config.activation]()]
    if config.kind == "mlp":
        parts += [nn.Linear(width, config.hidden), nn.ReLU()]
        width = config.hidden
    return nn.Sequential(*parts, nn.Linear(width, n_outputs))
