"""Training state in one safetensors file: nested state dicts, random states, no pickle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recon_search import artefact

CHECKPOINT = "checkpoint.safetensors"
"""Name of a training's checkpoint, in its folder."""

FORMAT = "recon-search/checkpoint/1"


def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Write nested dicts, lists, tuples, tensors, dtypes and JSON scalars atomically."""
    tensors: dict[str, Tensor] = {}
    skeleton = _pack(state, tensors, "")
    artefact.write_tensors(path, tensors, {"format": FORMAT, "skeleton": skeleton})


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; tensors on the CPU.

    Raises:
        ArtefactError: the file is missing, damaged or of another format.
    """
    tensors, metadata = artefact.read_tensors(path, "checkpoint")
    artefact.check_format(metadata, FORMAT, path)
    state: dict[str, Any] = _unpack(metadata["skeleton"], tensors)
    return state


def n_epochs(path: str | Path) -> int:
    """Number of epochs that a training's checkpoint holds; 0 where there is none."""
    if not Path(path).is_file():
        return 0
    epoch: int = load_checkpoint(path)["epoch"]
    return epoch


def write_history(directory: Path, history: Sequence[dict[str, Any]]) -> None:
    """Write `metrics.jsonl`: for people, and for when the checkpoint is gone."""
    text = "".join(json.dumps(record) + "\n" for record in history)
    artefact.write_text(directory / "metrics.jsonl", text)


def random_state() -> dict[str, Any]:
    """State of torch's global generators."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def restore_random_state(state: dict[str, Any]) -> None:
    """Put torch's global generators back."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def _pack(value: Any, tensors: dict[str, Tensor], path: str) -> Any:
    if isinstance(value, Tensor):
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, dict):
        # A list of pairs keeps the integer keys of optimiser states.
        return {"dict": [[k, _pack(v, tensors, f"{path}/{k}")] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_pack(v, tensors, f"{path}/{i}") for i, v in enumerate(value)]}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    return {"value": value}


def _unpack(packed: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    ((kind, value),) = packed.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {k: _unpack(v, tensors) for k, v in value}
    if kind == "list":
        return [_unpack(v, tensors) for v in value]
    if kind == "tuple":
        return tuple(_unpack(v, tensors) for v in value)
    if kind == "dtype":
        return getattr(torch, value)
    return value
