"""The control that spends a split's extra parameters on width instead."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from recon_search.errors import BackboneError
from recon_search.graph.split import Split
from recon_search.model.backbone import create_backbone
from recon_search.model.copies import surplus
from recon_search.model.facts import facts_of
from recon_search.model.source import untrained
from recon_search.recipe import WHOLE, BackboneConfig, CopyConfig

WIDTH_ARGUMENTS = ("channels", "embed_dim", "embed_dims", "dims", "channel_multiplier")
"""Arguments by which timm's constructors take their width."""


def widen(
    config: BackboneConfig,
    split: Split,
    shape: Sequence[int],
    copies: CopyConfig = WHOLE,
) -> BackboneConfig | None:
    """Find the unsplit backbone that comes nearest to a split network's parameter count.

    The width argument is multiplied by one factor, found by bisection. Attention heads keep their
    number, so a transformer's width moves in multiples of it.

    Returns:
        The widened backbone, or None where no argument of the backbone sets its width.
    """
    config = untrained(config)  # no weights fit another width
    facts, in_chans = facts_of(config, shape), shape[0]
    backbone, base = facts.analysis.trace.root, facts.n_parameters
    sizes = {info.name: info.n_parameters for info in facts.analysis.infos}
    further = {name: len(groups) - 1 for name, groups in split.layers.items() if name in sizes}
    target = base + sum(sizes[name] * n for name, n in further.items())
    target += surplus(facts.analysis, split, copies)
    defaults = inspect.signature(type(backbone).__init__).parameters
    for argument in WIDTH_ARGUMENTS:
        value = config.args.get(argument)
        if value is None and argument in defaults:
            value = getattr(backbone, argument, defaults[argument].default)
        if not isinstance(value, int | float | list | tuple):
            continue
        if _size(config, argument, value, in_chans) == base:
            return _bisect(config, argument, value, in_chans, target)
    return None


def _bisect(
    config: BackboneConfig, argument: str, value: Any, in_chans: int, target: int
) -> BackboneConfig:
    low, high = 1.0, 4.0
    best = config
    smallest = None
    for _ in range(16):
        factor = (low + high) / 2
        size = _size(config, argument, _scale(value, factor), in_chans)
        if size is None or size > target:
            high = factor
        else:
            low = factor
        if size is not None and (smallest is None or abs(size - target) < smallest):
            smallest = abs(size - target)
            args = {**config.args, argument: _scale(value, factor)}
            best = config.model_copy(update={"args": args})
    return best


def _scale(value: Any, factor: float) -> Any:
    if isinstance(value, list | tuple):
        return [_scale(item, factor) for item in value]
    return max(1, round(value * factor)) if isinstance(value, int) else value * factor


def _size(config: BackboneConfig, argument: str, value: Any, in_chans: int) -> int | None:
    """Parameters of the backbone with that width, or None where timm refuses it."""
    widened = config.model_copy(update={"args": {**config.args, argument: value}})
    try:
        with torch.device("meta"):
            return _count(create_backbone(widened, in_chans=in_chans))
    except BackboneError:
        return None


def _count(backbone: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in backbone.parameters())
