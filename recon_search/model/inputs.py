"""How a model's images were made ready, as its `config.json` tells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from recon_search.data.source import Inputs
from recon_search.data.transforms import SCALES
from recon_search.errors import ArtefactError

NEEDED = {"mean", "std", "shape"}


def input_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `data.transforms.prepare` reads: the shape, and how images are made ready.

    Args:
        config: of a model directory.

    Raises:
        ArtefactError: the model does not say, as one from a loop of one's own.
    """
    found = config.get("input")
    if not isinstance(found, Mapping) or not found.keys() >= NEEDED:
        raise ArtefactError(
            "A model's config.json must say how its images are made ready, this one has no input "
            "with shape, mean and std: it comes from a loop of one's own. Add them there."
        )
    return {"scale": SCALES[255.0], **found}


def inputs_of(config: Mapping[str, Any], device: torch.device) -> Inputs:
    """Return the normalisation that a model was trained with, whatever data it is shown now.

    Args:
        config: of a model directory.
        device: where images are.

    Raises:
        ArtefactError: see `input_of`.
    """
    found = input_of(config)
    mean, std = (torch.tensor(found[key], device=device) for key in ("mean", "std"))
    return Inputs(mean, std, next(s for s, text in SCALES.items() if text == found["scale"]))
