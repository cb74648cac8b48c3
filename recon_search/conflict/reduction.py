"""Processes that measure apart, as in a user's own data-parallel loop: their sums added up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from recon_search.errors import ProcessError


def n_processes() -> int:
    """Return the number of processes in torch's default group, 1 without a group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def add_up(
    kind: Any, state: str, start: Mapping[str, Tensor], now: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Add up what the processes of the default group have measured; all of them call this.

    What all had at the start counts once, what each has added since counts from each.

    Args:
        kind: what the tensors are of, JSON values, equal in all processes.
        state: identifies `start`. Where the processes began with different ones, these add up too.
        start: sums as they were.
        now: sums as they are, of the same shapes.

    Returns:
        int64 and float64 sums, bit-equal in all processes.

    Raises:
        ProcessError: the processes measure different things; raised in each of them.
    """
    shapes = {name: list(tensor.shape) for name, tensor in sorted(now.items())}
    found: list[Any] = [None] * n_processes()
    dist.all_gather_object(found, (kind, shapes, state))
    if any(each[:2] != found[0][:2] for each in found):
        raise ProcessError(
            "Scores can be reduced only over processes that measure the same layers, tasks and "
            f"number of probes, found {len({repr(each[:2]) for each in found})} kinds among "
            f"{len(found)} processes. Create them alike in every process."
        )
    is_common = all(each[2] == found[0][2] for each in found)
    total = {}
    for name in shapes:
        tensor = _wide(now[name])
        first = _wide(start[name]) if is_common else torch.zeros_like(tensor)
        added = _exchangeable(tensor - first.to(tensor.device))
        dist.all_reduce(added)
        total[name] = first.to(tensor.device) + added.to(tensor.device)
    return total


def _wide(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor.long()


def _exchangeable(tensor: Tensor) -> Tensor:
    """Move a tensor to where the group's backend can send it from."""
    on_gpu_only = dist.get_backend() == "nccl"
    return tensor.cuda() if on_gpu_only else tensor.cpu()
