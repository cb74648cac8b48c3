"""Which samples make which step: the same for every feed."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from recon_search.artefact import digest


def permutation(n: int, order: tuple[int, int]) -> Tensor:
    """Shuffle n samples; a function of (seed, epoch) alone."""
    generator = torch.Generator().manual_seed(int(digest(list(order))[:12], 16))
    return torch.randperm(n, generator=generator)


def n_steps(n: int, size: int, *, shuffled: bool) -> int:
    """Number of steps that n samples make (see `Feed.steps`)."""
    whole, rest = divmod(n, size)
    if shuffled and whole:
        return whole
    return whole + (rest > 0)


def spans(n: int, size: int, *, shuffled: bool, share: tuple[int, int]) -> Iterator[slice]:
    """Yield for every step the places of a process's share in the order of the samples."""
    stop = n_steps(n, size, shuffled=shuffled) * size
    number, n_shares = share
    for start in range(0, min(stop, n), size):
        length = min(size, n - start) // n_shares
        first = start + number * length
        yield slice(first, first + length)
