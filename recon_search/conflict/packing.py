"""Sums as files keep them: every number as it is, in few bytes.

The first bytes of all numbers stand together, then the second ones, and so on (as in the shuffle
filter of HDF5). The high bytes of counts and the low bytes of sums of few bits are zeros and left
out; a byte in front has a bit for each place that is there. What remains is close to noise, in
which zlib looks for runs alone.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recon_search.conflict.sums import Sums
from recon_search.errors import ArtefactError
from recon_search.memory import in_gigabytes, total_memory

PLAIN = "window_steps"
"""Not packed: it says how many probes the others are of."""

LARGEST_RATIO = 1032
"""How many bytes one of zlib's can hold at most (https://zlib.net/zlib_tech.html)."""


def pack(sums: Mapping[str, Tensor]) -> Sums:
    """Pack sums into bytes, uint8 (n,) by name; equal sums give equal bytes."""
    return {name: t if name == PLAIN else _deflate(t) for name, t in sums.items()}


def unpack(tensors: Mapping[str, Tensor], like: Sums, source: str | Path) -> Sums:
    """Take what is packed apart; tensors that are not are left as they are.

    No more memory is taken than sums of the probes that `window_steps` speaks of need, nor for more
    than `LARGEST_RATIO` numbers a byte that there is.

    Args:
        tensors: as read.
        like: sums of one probe of the layers and pairs expected.
        source: names the file in the error.

    Raises:
        ArtefactError: bytes are damaged, or of another number of sums.
    """
    steps = tensors.get(PLAIN)
    n_probes = len(steps) if steps is not None and steps.ndim else 1
    found = dict(tensors)
    for name, tensor in tensors.items():
        if name in like and tensor.dtype == torch.uint8 and tensor.ndim == 1:
            try:
                found[name] = _inflate(tensor, name, like[name], n_probes)
            except (ValueError, zlib.error) as error:
                raise ArtefactError(
                    f"{source} must hold '{name}' packed as it was, it does not ({error}). "
                    "Probe again."
                ) from None
    return found


def _deflate(tensor: Tensor) -> Tensor:
    size = tensor.element_size()
    planes = tensor.cpu().contiguous().flatten().view(torch.uint8).view(-1, size).T
    there = [place for place in range(size) if place == 0 or bool(planes[place].any())]
    method = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    packed = bytes([sum(1 << place for place in there)])
    packed += method.compress(planes[there].contiguous().numpy().data) + method.flush()
    return torch.frombuffer(bytearray(packed), dtype=torch.uint8)


def _inflate(packed: Tensor, name: str, like: Tensor, n_probes: int) -> Tensor:
    """Raise ValueError or `zlib.error` where the bytes are not those of such a tensor."""
    shape = list(like.shape) if name == "counts" else [n_probes, *like.shape[1:]]
    size, content = like.element_size(), packed.numpy()
    if not len(content) or not content[0] & 1 or content[0] >> size:
        raise ValueError(f"no byte says which of {size} are there")
    there = [place for place in range(size) if content[0] >> place & 1]
    if math.prod(shape) > LARGEST_RATIO * len(content):
        raise ValueError(f"{len(content):,} bytes cannot hold {math.prod(shape):,} numbers")
    if math.prod(shape) * size > total_memory():
        raise ValueError(f"{in_gigabytes(math.prod(shape) * size)} are more than the memory")
    n_bytes = math.prod(shape) * len(there)
    method = zlib.decompressobj()
    raw = method.decompress(content[1:].data, n_bytes + 1)
    if not method.eof or method.unused_data:
        raise ValueError(f"they hold more than {n_bytes:,} bytes, or do not end there")
    if name == "window_counts" and len(raw) != n_bytes:
        shape[-2] = 1  # of all pairs together
    if len(raw) != math.prod(shape) * len(there):
        raise ValueError(f"they hold {len(raw):,} bytes, not {n_bytes:,}")
    planes = np.frombuffer(raw, np.uint8).reshape(len(there), -1)
    numbers = np.zeros((math.prod(shape), size), np.uint8)
    for place, plane in zip(there, planes, strict=True):
        numbers[:, place] = plane
    return torch.from_numpy(numbers).flatten().view(like.dtype).view(shape)
