"""Checkpoints that torch.save wrote, as safetensors: nothing is unpickled that could run code."""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recon_search import artefact
from recon_search.disk import refuse_same
from recon_search.errors import ArtefactError, in_one_line
from recon_search.model.weights import PREFIXES

CONTAINERS = ("state_dict_ema", "model_ema", "state_dict", "model", "module")
"""Keys under which training scripts keep a state dict; in timm's order, averaged weights first."""


def convert_checkpoint(source: str | Path, target: str | Path) -> int:
    """Write the weights of a `.pth`, `.pt` or `.bin` file as safetensors.

    The state dict is searched under `CONTAINERS`; prefixes of wrappers that all names share are
    stripped; what is no tensor is dropped; tensors that share memory become independent.

    Args:
        source: read by `torch.load(weights_only=True)`.
        target: a `.safetensors` file, which `backbone.weights` takes.

    Returns:
        How many tensors were written.

    Raises:
        ArtefactError: the source is missing, damaged, would have to run code, or holds no weights.
    """
    source, target = Path(source), Path(target)
    if target.suffix != ".safetensors":
        raise ArtefactError(
            f"A converted checkpoint must be named .safetensors, got {target}. "
            f"Try {target.with_suffix('.safetensors')}."
        )
    refuse_same(target, "The .safetensors file", [source])
    state = _strip(_find_state(_load(source), source))
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise ArtefactError(
                f"A checkpoint's tensors must be dense and not quantised, '{name}' in {source} is "
                "not. Save the model's float weights."
            )
    independent = {name: tensor.detach().clone() for name, tensor in state.items()}
    artefact.write_tensors(target, independent, {"source": source.name})
    return len(state)


def _load(source: Path) -> Any:
    if not source.is_file():
        raise ArtefactError(f"A checkpoint is needed, found no file at {source}. Check the path.")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # a script's arguments
            return torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if wanted := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise ArtefactError(
                f"A checkpoint must hold tensors and plain values, {source} needs code to be read "
                f"({wanted.group(1)}), which is never run. Save model.state_dict() instead, where "
                "the file comes from."
            ) from None
        reason = in_one_line(error)
    except Exception as error:  # whatever torch makes of bytes that are none of its own
        reason = in_one_line(error)
    raise ArtefactError(
        f"A checkpoint must be a file that torch.save wrote, {source} ({source.stat().st_size} "
        f"bytes) is damaged or of another format: {reason[:160]}. Download or write it again."
    )


def _find_state(content: Any, source: Path) -> dict[str, Tensor]:
    """The state dict in what was loaded, however deep in `CONTAINERS`."""
    if isinstance(content, Mapping):
        for key in CONTAINERS:
            if isinstance(content.get(key), Mapping) and content[key]:
                return _find_state(content[key], source)
        state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if state:
            return state
        found = f"the keys {', '.join(map(str, list(content)[:8]))}" if content else "nothing"
    else:
        found = f"a {type(content).__name__}"
    raise ArtefactError(
        f"A checkpoint must hold a state dict, itself or under {', '.join(CONTAINERS)}, {source} "
        f"holds {found}. Save model.state_dict()."
    )


def _strip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            return _strip({name.removeprefix(prefix): value for name, value in state.items()})
    return state
