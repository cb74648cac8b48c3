"""The processes that share one training under `torchrun`; alone, everything here does nothing.

Every process takes its part of every batch. What it finds (losses, gradients) is averaged over the
processes before anything is decided from it, and what is drawn at random is the first process's, so
that a group computes what one process computes on the same batches. The first process alone reads,
writes, prints and evaluates; the others get Python values from it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recon_search.errors import ProcessError

T = TypeVar("T")

TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others' tensors; a dead one is noticed at once."""

PATIENCE = timedelta(days=30)
"""How long the others wait for a value while the first process evaluates, writes or plans."""

BUCKET = 2**24
"""Elements averaged in one exchange."""

_values: dist.ProcessGroup | None = None
"""The group that carries Python values; None outside `group`."""


class LeftError(Exception):
    """Raised in the other processes where the first one raised an error of its own."""


@contextlib.contextmanager
def group(device: torch.device) -> Iterator[None]:
    """Join the processes that `torchrun` started, for the block; a lone process does nothing.

    After an error nothing is put in order: the processes are out of step, and `torchrun` ends all
    of them as soon as one has failed.

    Args:
        device: `cuda` gives each process the GPU of its local rank.

    Raises:
        ProcessError: there are more processes than GPUs.
    """
    global _values
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if device.type == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise ProcessError(
                f"Every process must have a GPU of its own, found {torch.cuda.device_count()} for "
                f"process {local + 1}. Lower --nproc-per-node, or pass --device cpu."
            )
        torch.cuda.set_device(local)
    with _together():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
        values = dist.new_group(backend="gloo", timeout=PATIENCE)
    assert isinstance(values, dist.ProcessGroup)
    _values = values
    yield
    _values = None
    dist.destroy_process_group()


def rank() -> int:
    """Return the number of this process, 0 for the first."""
    return 0 if _values is None else dist.get_rank()


def size() -> int:
    """Return the number of processes."""
    return 1 if _values is None else dist.get_world_size()


def is_first() -> bool:
    """Whether this process is the one that reads, writes and prints."""
    return rank() == 0


def agree(value: T) -> T:
    """Return the first process's value, which must pickle; the others' is not looked at."""
    if _values is None:
        return value
    shared: list[T] = [value]
    with _together():
        dist.broadcast_object_list(shared, src=0, group=_values)
    return shared[0]


def on_first(action: Callable[[], T]) -> T:
    """Let the first process alone act; every process gets the result.

    Raises:
        LeftError: in the others, where the action raised; the first process raises its error.
    """
    if _values is None:
        return action()
    if not is_first():
        succeeded, value = agree((False, None))
        if not succeeded:
            raise LeftError
        return value  # type: ignore[return-value]
    try:
        result = action()
    except BaseException:
        agree((False, None))
        raise
    agree((True, result))
    return result


def from_first(tensor: Tensor) -> Tensor:
    """Return the first process's tensor; all have the same shape."""
    if _values is None:
        return tensor
    shared = tensor.detach().clone(memory_format=torch.contiguous_format)
    with _together():
        dist.broadcast(shared, src=0)
    return shared


def mean(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Average tensors over the processes, which hold equal shapes in equal order.

    Returns:
        New tensors, bit-equal in all processes; alone, the tensors themselves.
    """
    if _values is None:
        return list(tensors)
    averaged: list[Tensor] = []
    for bucket in _buckets(tensors):
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in bucket])
        with _together():
            dist.all_reduce(flat)
        flat /= size()
        pieces = torch.split(flat, [tensor.numel() for tensor in bucket])
        averaged += [p.view(tensor.shape) for p, tensor in zip(pieces, bucket, strict=True)]
    return averaged


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every `.grad` by its mean over the processes."""
    if _values is None:
        return
    held = {parameter: parameter.grad for parameter in parameters if parameter.grad is not None}
    for parameter, gradient in zip(held, mean(list(held.values())), strict=True):
        parameter.grad = gradient


@torch.no_grad()
def synchronise(model: nn.Module) -> None:
    """Give every process the first one's parameters and buffers."""
    if _values is not None:
        for tensor in itertools.chain(model.parameters(), model.buffers()):
            tensor.copy_(from_first(tensor))


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Cut a sequence into runs of one type and at most `BUCKET` elements, or one tensor."""
    bucket: list[Tensor] = []
    elements = 0
    for tensor in tensors:
        is_full = elements + tensor.numel() > BUCKET
        if bucket and (is_full or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, elements = [], 0
        bucket.append(tensor)
        elements += tensor.numel()
    if bucket:
        yield bucket


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """Turn what torch raises when a process is gone into one clear line."""
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split(". ")[0].split())[:200]
        raise ProcessError(
            "All processes must live until the training ends, at least one is gone or does not "
            f"answer ({reason}). Run the same command with --resume."
        ) from None
