"""What sums over the steps of a probe must obey, whoever wrote the file that they are read from.

A Gramian G is positive semidefinite, so |G_ij| <= n_i n_j <= N_i N_j at every step, and every step
of a pair adds one to the counts of its layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from recon_search.conflict.sums import N_BELOW
from recon_search.errors import ArtefactError

SLACK = 1e-3
"""By how much gradients of low precision may overstep a bound, relative to it."""


def check_kinds(sums: Mapping[str, Tensor], like: Mapping[str, Tensor], source: str | Path) -> None:
    """Refuse sums of other types than `like` has: counts of another width are none of others.

    Raises:
        ArtefactError: naming the first.
    """
    for name, expected in like.items():
        kinds = (torch.float64,) if expected.is_floating_point() else (torch.int32, torch.int64)
        if sums[name].dtype not in kinds:
            raise ArtefactError(
                f"{source} must hold '{name}' as {str(kinds[0]).removeprefix('torch.')}, found "
                f"{str(sums[name].dtype).removeprefix('torch.')}. Probe again."
            )


def check_laws(sums: Mapping[str, Tensor], source: str | Path) -> None:
    """Refuse sums that no probe can have given.

    Args:
        sums: whose names and shapes are those of `empty_sums`.
        source: names the file in the error.

    Raises:
        ArtefactError: naming the first law that is broken.
    """
    sums = {name: tensor.cpu() for name, tensor in sums.items()}
    steps = sums["pair_steps"].long()  # (probes, windows, halves, pairs)
    counts = sums["counts"].numpy()  # which adds int32 up to int64 without a copy
    below = torch.from_numpy(counts[..., :N_BELOW].sum(-1, dtype="int64"))  # (L, pairs)
    whole = torch.from_numpy(counts.sum(-1, dtype="int64"))
    windowed = sums["window_counts"].sum((0, 1, 2, -1))  # (L, pairs or 1)
    if windowed.shape != below.shape:
        below = below.sum(-1, keepdim=True)
    most = steps.double()[..., None, :]  # (probes, windows, halves, 1, pairs)
    inner, mass = sums["inner"], sums["mass"]
    laws = {
        "numbers that are finite": all(
            bool(tensor.abs().max().isfinite())
            for tensor in sums.values()
            if tensor.is_floating_point() and tensor.numel()
        ),
        "numbers of steps and mass and projection that are not negative": all(
            bool(tensor.min() >= 0)
            for name, tensor in sums.items()
            if name != "inner" and tensor.numel()
        ),
        "a count for each step of a pair": bool((whole == steps.sum((0, 1, 2))).all()),
        "equal counts in its windows and over all": bool((windowed == below).all()),
        "no pair in more steps of a window than were measured": bool(
            (steps.sum(2) <= sums["window_steps"].sum(2)[..., None]).all()
        ),
        "sums that so many steps can have": all(
            bool((sums[name].abs() <= most * (1 + SLACK)).all())
            for name in ("inner", "mass", "projection")
        ),
        "no inner product below what conflicts": bool((inner + mass >= -SLACK * most).all()),
    }
    for law, holds in laws.items():
        if not holds:
            raise ArtefactError(f"{source} must hold {law}, it does not. Probe again.")
