"""How the images were made ready that a backbone's weights were trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import timm
from timm.data import resolve_data_config

from recon_search import artefact
from recon_search.data.transforms import Pretraining
from recon_search.errors import BackboneError, in_one_line
from recon_search.model.plain import short
from recon_search.model.source import find_source
from recon_search.recipe import BackboneConfig

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


def find_pretraining(
    config: BackboneConfig, statistics: Literal["auto", "data", "timm"]
) -> Pretraining | None:
    """Return what timm knows of a backbone's weights; None where the data's own is wanted.

    Weights from a local file count as timm's, if it knows none for the name as ImageNet's.

    Args:
        config: of the backbone.
        statistics: `data.statistics`; "auto" asks whether the backbone begins with weights.

    Raises:
        BackboneError: a folder or a hub that the name points to lacks what is needed.
    """
    if statistics == "data":
        return None
    named = ":" in config.name  # local-dir and hf-hub bring weights along
    if statistics == "auto" and not (config.pretrained or config.weights or named):
        return None
    source = find_source(config)
    known: Mapping[str, Any] = source.online or _of_folder(config.name)
    if not known and timm.is_model(source.config.name):
        usual = timm.get_pretrained_cfg(source.config.name)
        known = {} if usual is None else usual.to_dict()
    try:
        found = resolve_data_config({}, pretrained_cfg=dict(known))
        interpolation = str(found["interpolation"])
        mean, std = (tuple(map(float, found[name])) for name in ("mean", "std"))
        if len(mean) != len(std) or not all(map(math.isfinite, mean + std)) or min(std) <= 0:
            raise ValueError(f"mean {short(found['mean'])} and std {short(found['std'])}")
    except (AssertionError, LookupError, TypeError, ValueError) as error:
        raise BackboneError(
            f"`backbone.name` {config.name} must say how images are made ready, its config.json "
            f'does not: {in_one_line(error)}. Mend it, or set data.statistics = "data".'
        ) from None
    return Pretraining(mean, std, interpolation if interpolation in INTERPOLATIONS else "bicubic")


def _of_folder(name: str) -> Mapping[str, Any]:
    """What a local folder says of its weights."""
    kind, _, place = name.partition(":")
    if kind.lower().replace("_", "-") != "local-dir":
        return {}
    config = artefact.read_json(Path(place) / "config.json", "timm config.json")
    found = config.get("pretrained_cfg", config) if isinstance(config, dict) else None
    return found if isinstance(found, dict) else {}
