"""Training state in safetensors files: nested state dicts, random states, no pickle.

The sums of conflicts grow with the square of the number of tasks, and stand in a file beside the
checkpoint, which does not. It is named by its content: as long as a checkpoint stands that speaks
of it, it stays, and the pair is changed by the one writing of the checkpoint.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recon_search import artefact
from recon_search.conflict.sums import digest_sums
from recon_search.errors import ArtefactError, in_one_line
from recon_search.recipe import TrainConfig
from recon_search.training.flat import TABLE, write_table

CHECKPOINT = "checkpoint.safetensors"
"""Name of a training's checkpoint, in its folder."""

FORMAT = "recon-search/checkpoint/4"
WHOLE = "recon-search/checkpoint/3"
"""Sums of conflicts stand in it."""
PLAIN = "recon-search/checkpoint/2"
"""Sums of conflicts are not packed."""
UNSEALED = "recon-search/checkpoint/1"
"""Without a digest."""

SUMS = "recon-search/checkpoint-sums/1"

ADVICE = "Delete the file, and this training begins anew."


def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Write nested dicts, lists, tuples, tensors, dtypes and JSON scalars atomically.

    Args:
        path: of the checkpoint.
        state: its `scores`, tensors by name, are written to a file beside it, if there are any.
    """
    path, state = Path(path), dict(state)
    metadata: dict[str, Any] = {"format": FORMAT}
    if "scores" in state:
        sums = state.pop("scores")
        metadata["sums"] = digest_sums(None, sums) if sums else None
        if sums:
            artefact.write_tensors(_sums_file(path, metadata["sums"]), sums, {"format": SUMS})
    tensors: dict[str, Tensor] = {}
    metadata["skeleton"] = _pack(state, tensors, "")
    artefact.write_tensors(path, tensors, metadata)
    _sweep_sums(path, keep=metadata.get("sums"))


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; tensors on the CPU.

    Raises:
        ArtefactError: a file is missing, damaged or of another format.
    """
    path = Path(path)
    try:
        tensors, metadata = artefact.read_tensors(
            path, "checkpoint", FORMAT, WHOLE, PLAIN, UNSEALED
        )
    except ArtefactError as error:
        raise ArtefactError(f"{error} {ADVICE}") from None
    try:
        state = _unpack(metadata["skeleton"], tensors)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise refusal(path, error) from None
    if not isinstance(state, dict):
        raise refusal(path, TypeError("no names"))
    if "sums" in metadata:
        state["scores"] = _read_sums(path, metadata["sums"])
    return state


def delete_checkpoint(path: str | Path) -> None:
    """Delete a checkpoint, if there is one, and before it what stands beside it.

    As long as there is a checkpoint, one who finds it deletes what is left.
    """
    _sweep_sums(Path(path), keep=None)
    Path(path).unlink(missing_ok=True)


def n_epochs(path: str | Path) -> int:
    """Number of epochs that a training's checkpoint holds; 0 where there is none."""
    if not Path(path).is_file():
        return 0
    epoch: int = load_checkpoint(path)["epoch"]
    return epoch


def write_history(directory: Path, history: Sequence[dict[str, Any]]) -> None:
    """Write `metrics.jsonl`, for when the checkpoint is gone, and `metrics.csv`, for people."""
    text = "".join(json.dumps(record) + "\n" for record in history)
    artefact.write_text(directory / "metrics.jsonl", text)
    write_table(directory / TABLE, history)


def refusal(path: str | Path, reason: Exception) -> ArtefactError:
    """Return the error for a checkpoint that does not hold what its training needs."""
    return ArtefactError(
        f"A checkpoint must hold the state of its training, {path} does not "
        f"({in_one_line(reason)}). {ADVICE}"
    )


def check_progress(
    epoch: object, history: object, config: TrainConfig, *, is_begun: bool = False
) -> None:
    """Make sure that a training can stand where its checkpoint says, with a record an epoch.

    Args:
        epoch: those that are done.
        history: their records.
        config: of the training.
        is_begun: whether it stands in the midst of the next one.

    Raises:
        ValueError: it cannot.
    """
    low, high = (0, config.epochs - 1) if is_begun else (1, config.epochs)
    if not isinstance(epoch, int) or not low <= epoch <= high:
        raise ValueError(f"its epoch must be between {low} and {high}, it is {epoch!r}")
    needed = {"epoch", "train", "validation"}
    if config.keeps_best or config.patience:
        needed |= {"relative_loss", "best"}
    if not isinstance(history, list) or len(history) != epoch:
        raise ValueError(f"it must have the records of {epoch} epochs")
    for number, record in enumerate(history, start=1):
        if not isinstance(record, dict) or not needed <= set(record) or record["epoch"] != number:
            raise ValueError(f"the record of epoch {number} is not that")


def check_kinds(tensors: Any, like: Mapping[str, Tensor]) -> None:
    """Make sure that floating-point numbers are put back as such, and others as others.

    Raises:
        TypeError: naming the first tensor of another kind.
    """
    for name, tensor in tensors.items():
        if name in like and tensor.is_floating_point() != like[name].is_floating_point():
            raise TypeError(f"'{name}' has type {tensor.dtype}, not {like[name].dtype}")


def random_state() -> dict[str, Any]:
    """State of torch's global generators."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def restore_random_state(state: dict[str, Any]) -> None:
    """Put torch's global generators back: of GPUs those that are here, as many as were there."""
    torch.set_rng_state(state["cpu"])
    for device, own in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(own, device)


def _sums_file(path: Path, digest: str) -> Path:
    return path.with_name(f"{path.stem}-sums-{digest}.safetensors")


def _read_sums(path: Path, digest: object) -> dict[str, Tensor]:
    if digest is None:
        return {}
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{16}", digest):
        raise refusal(path, ValueError(f"its sums are named {digest!r}"))
    file = _sums_file(path, digest)
    try:
        sums, _ = artefact.read_tensors(file, "sums", SUMS)
    except ArtefactError as error:
        raise refusal(path, error) from None
    if digest_sums(None, sums) != digest:
        raise refusal(path, ValueError(f"{file.name} holds other sums than it had"))
    return sums


def _sweep_sums(path: Path, *, keep: str | None) -> None:
    """Delete the sums that no checkpoint speaks of any more."""
    for file in path.parent.glob(f"{glob.escape(path.stem)}-sums-*.safetensors"):
        if keep is None or file != _sums_file(path, keep):
            file.unlink(missing_ok=True)


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
        found = getattr(torch, value)
        if not isinstance(found, torch.dtype):
            raise TypeError(f"{value} is no dtype")
        return found
    if kind != "value" or isinstance(value, dict | list):
        raise ValueError(f"{kind} is no kind of state")
    return value
