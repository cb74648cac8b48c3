"""timm backbones: made, seeded, and what a split file says of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from recon_search import artefact
from recon_search.errors import BackboneError, SplitError, nearest
from recon_search.graph.anatomy import Anatomy, dissect
from recon_search.graph.layers import backbone_digest
from recon_search.graph.split import Split
from recon_search.recipe import BackboneConfig


def create_backbone(config: BackboneConfig, *, in_chans: int, seed: int = 0) -> nn.Module:
    """Create the plain timm model.

    Raises:
        BackboneError: timm does not know the name, refuses an argument, or cannot load the weights.
    """
    if not timm.is_model(config.name):
        known = timm.list_models()
        raise BackboneError(
            f"`backbone.name` must be a timm model, got '{config.name}'."
            f"{nearest(config.name, known)}"
        )
    arguments = {"in_chans": in_chans, "num_classes": config.features, **config.args}
    if config.weights is not None:
        arguments |= _pretrained_arguments(config.weights)
    try:
        with seeded(seed, "backbone"):
            model: nn.Module = timm.create_model(config.name, **arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError, KeyError) as error:
        raise BackboneError(
            f"timm must be able to create {config.name} with {arguments}, got: "
            f"{' '.join(str(error).split())} Check `backbone.args` and `backbone.weights`."
        ) from None
    return model


def backbone_identity(config: BackboneConfig, backbone: nn.Module) -> dict[str, Any]:
    """What a split file says of its backbone, which `config` made."""
    return {
        "name": config.name,
        "args": config.args,
        "features": config.features,
        "digest": backbone_digest(backbone),
    }


def recorded_backbone(split: Split, source: str | Path) -> BackboneConfig:
    """Return the backbone that a split file says it was made for.

    Raises:
        SplitError: it does not say.
    """
    record = split.backbone
    try:
        return BackboneConfig(
            name=record["name"], args=record["args"], features=record.get("features", 0)
        )
    except (KeyError, ValueError):
        raise SplitError(
            f"A split to show must say its backbone's timm name and arguments, {source} says "
            f"{dict(record)}. Write it again with recon-search split."
        ) from None


def dissect_recorded(
    config: BackboneConfig, split: Split, shape: Sequence[int] | None = None, *, timed: bool = False
) -> Anatomy:
    """Create a backbone with random weights and dissect it (see `dissect`).

    Args:
        config: the backbone; its weights are not loaded.
        split: the plan.
        shape: of one image, (C, H, W); what timm configured the backbone for if None.
        timed: estimate the latency as well.

    Raises:
        BackboneError: timm does not know the backbone, or its graph cannot be taken apart.
        SplitError: the split does not fit the backbone.
    """
    config = config.model_copy(update={"weights": None})
    backbone = create_backbone(config, in_chans=shape[0] if shape else 3)
    example = torch.zeros(2, *shape) if shape else None
    return dissect(backbone, split, title=config.name, example=example, timed=timed)


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Seed torch for a purpose inside the block, and put the global state back after it."""
    with torch.random.fork_rng():
        torch.manual_seed(int(artefact.digest([seed, purpose])[:12], 16))
        yield


def _pretrained_arguments(weights: str) -> dict[str, Any]:
    if not weights.endswith(".safetensors") or not Path(weights).is_file():
        raise BackboneError(
            f"`backbone.weights` must be a local .safetensors file, got {weights}. "
            "Convert a pickled checkpoint with safetensors first."
        )
    return {"pretrained": True, "pretrained_cfg_overlay": {"file": weights, "num_classes": -1}}
