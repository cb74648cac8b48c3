"""An example input of a backbone, for the forward passes that building a network takes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recon_search.errors import BackboneError


def example_input(module: nn.Module) -> Tensor:
    """Return two random inputs, always the same, of the size that `module` is configured for.

    The size is the model's `img_size` or that of timm's `default_cfg`; without either, 32 by 32.
    The channels come from the first convolution, for the configuration keeps three whatever
    `in_chans` was. A module without convolutions and configuration gets vectors.

    Raises:
        BackboneError: the module has no weights to tell from.
    """
    first = next((p for p in module.parameters() if p.ndim >= 2 and p.is_floating_point()), None)
    if first is None:
        raise BackboneError(
            f"A backbone without weights needs an example input, {type(module).__name__} has none. "
            "Pass example=."
        )
    config = getattr(module, "default_cfg", None) or {}
    size = tuple(config.get("input_size", (3, 32, 32)))
    for part in module.modules():
        chosen = getattr(part, "img_size", None)
        if isinstance(chosen, tuple):  # the argument img_size overrides the configuration
            size = (size[0], *chosen)
            break
    convolution = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    if convolution is not None:
        size = (convolution.in_channels, *size[1:])
    elif not config:
        size = (first.shape[1],)
    generator = torch.Generator().manual_seed(0)  # the caller's random state stays as it is
    return torch.randn(2, *size, generator=generator).to(first)
