"""What is added up over the steps of a probe: tensors in, tensors out."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recon_search.errors import ArtefactError, RecipeError

N_BINS = 200
N_BELOW = N_BINS // 2
"""Bins of negative cosines."""

N_WINDOWS = 10
N_HALVES = 2
BLOCKS = (N_WINDOWS, N_HALVES)
"""The parts of one probe that are summed apart."""

MANY_PAIRS = 28
"""Eight tasks: above, counts of a window pool the pairs, and do not grow with their number."""

PRECISION = 19
"""Significant bits of sums above `MANY_PAIRS`, rounded at every step: what no rule can tell, as it
adds up the pairs, need not be kept for each of them."""

EDGES = torch.arange(-N_BELOW + 1, N_BELOW, dtype=torch.float64) / N_BELOW

BINS = [-1.0, *EDGES.tolist(), 1.0]
"""Edges of the bins, the lower one within."""

Sums = dict[str, Tensor]
"""By name: `counts` of cosines (L, pairs, bins) over all steps; by probe, window and half of it the
measured steps, those of each pair, and the rest by layer and pair."""


def empty_sums(n_layers: int, n_pairs: int) -> Sums:
    """Sums of one probe before its first step."""
    n_apart = n_pairs if n_pairs <= MANY_PAIRS else 1
    return {
        "counts": torch.zeros(n_layers, n_pairs, N_BINS, dtype=torch.int32),
        # By probe, window and half:
        "window_counts": torch.zeros(1, *BLOCKS, n_layers, n_apart, N_BELOW, dtype=torch.int32),
        "window_steps": torch.zeros(1, *BLOCKS, dtype=torch.int32),
        "pair_steps": torch.zeros(1, *BLOCKS, n_pairs, dtype=torch.int32),
        **{
            name: torch.zeros(1, *BLOCKS, n_layers, n_pairs, dtype=torch.float64)
            for name in ("projection", "mass", "inner")
        },
    }


def add_step(sums: Sums, gramians: Tensor, here: Tensor | None, at: float) -> None:
    """Add one step to the last probe, in place; the device is not waited for.

    Args:
        sums: on the device of the Gramians.
        gramians: float64 (L, T, T), zeros in the rows and columns of absent tasks.
        here: bools (T,), which tasks are present; None: those with a gradient in any layer.
        at: how much of the probe lies behind the step, in [0, 1].
    """
    n_layers, n_tasks, _ = gramians.shape
    if n_tasks == 1:
        return
    device = gramians.device
    first, second = torch.triu_indices(n_tasks, n_tasks, 1, device=device)
    squares = gramians.diagonal(dim1=1, dim2=2)  # (L, T)
    whole = squares.sum(0)  # (T,)
    here = whole > 0 if here is None else here
    met = here[first] & here[second]  # (pairs,)
    place = -1, min(int(at * N_WINDOWS), N_WINDOWS - 1)
    halves = torch.arange(N_HALVES, device=device)
    n_before = sums["pair_steps"].sum((0, 1, 2))  # (pairs,)
    into = met & (n_before % N_HALVES == halves[:, None])  # (halves, pairs)
    is_next = sums["window_steps"].sum() % N_HALVES == halves  # (halves,)
    sums["window_steps"][place] += is_next & met.any()
    sums["pair_steps"][place] += into

    inner = gramians[:, first, second]  # (L, pairs)
    lengths = (squares[:, first] * squares[:, second]).sqrt()
    cosines = torch.where(lengths > 0, inner / lengths, 0.0)
    bins = torch.bucketize(cosines, EDGES.to(device), right=True)  # (L, pairs)
    sums["counts"].scatter_add_(2, bins[..., None], met.int().expand_as(bins)[..., None])
    windowed = sums["window_counts"][place]  # (halves, L, pairs or 1, bins)
    apart = n_layers, windowed.shape[2], -1
    below = (into[:, None] & (bins < N_BELOW)).int().view(N_HALVES, *apart)
    index = bins.clamp(max=N_BELOW - 1).view(apart)
    windowed.scatter_add_(3, index.expand_as(below), below)

    scale = (whole[first] * whole[second]).sqrt()  # N_i N_j, (pairs,)
    scale = torch.where(scale > 0, scale, torch.inf)
    shorter = torch.minimum(squares[:, first], squares[:, second]).sqrt()
    for name, value in {
        "projection": cosines.neg().relu() * shorter / scale.sqrt(),
        "mass": inner.neg().relu() / scale,
        "inner": inner / scale,
    }.items():
        total = sums[name][place]
        total += torch.where(into[:, None], value, 0.0)
        if len(met) > MANY_PAIRS:
            total.copy_(_rounded(total))


def _rounded(values: Tensor) -> Tensor:
    """Round to `PRECISION` bits (Dekker, Numer. Math. 18, 1971), as every device does it."""
    wide = values * (2.0 ** (53 - PRECISION) + 1)
    return wide - (wide - values)


def up_to_most(steps: Tensor) -> Tensor:
    """What scales sums over each pair's own steps to those of the pair that met most: (pairs,).

    Args:
        steps: float64, of each pair; 0 where it never met, which gives 0.
    """
    most = max(steps.tolist(), default=0.0)
    return torch.where(steps > 0, most / steps, 0.0)


def narrow(name: str, tensor: Tensor) -> Tensor:
    """Counts as int32, sums as float64.

    Raises:
        ArtefactError: a count is too large.
    """
    if tensor.is_floating_point():
        return tensor.double()
    if tensor.numel() and int(tensor.max()) > torch.iinfo(torch.int32).max:
        raise ArtefactError(
            f"Counts of scores must stay below 2 ** 31, '{name}' would hold {int(tensor.max())}. "
            "Add up fewer probes."
        )
    return tensor.int()


def join(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Sums:
    """Put the probes of two scores one after the other; on the CPU.

    Raises:
        ArtefactError: a count is too large.
    """
    joined = {}
    for name, tensor in ours.items():
        first, second = tensor.cpu(), theirs[name].cpu()
        if name == "counts":
            joined[name] = narrow(name, first.long() + second.long())
            continue
        if name == "window_counts" and first.shape[-2] != second.shape[-2]:
            first, second = (narrow(name, each.sum(-2, keepdim=True)) for each in (first, second))
        joined[name] = torch.cat([first, second])
    return joined


def fit_sums(tensors: Mapping[str, Tensor], like: Sums, source: str | Path) -> Sums:
    """Copy sums that were read, of any number of probes, also those of the format before.

    There every pair was measured in every step, and counts of windows were of all pairs together.

    Args:
        tensors: as read.
        like: sums of the layers and pairs expected.
        source: names the file in the error.

    Raises:
        ArtefactError: names or shapes do not fit, or a count is too large.
    """
    steps, counts = tensors.get("window_steps"), tensors.get("window_counts")
    if "pair_steps" not in tensors and steps is not None and counts is not None:
        n_pairs = like["pair_steps"].shape[-1]
        tensors = {
            **tensors,
            "window_counts": counts[..., None, :N_BELOW],
            "pair_steps": steps[..., None].expand(*steps.shape, n_pairs),
        }
    n_probes = max(1, len(steps) if steps is not None and steps.ndim else 0)
    for name, tensor in like.items():
        shape = list(tensor.shape) if name == "counts" else [n_probes, *tensor.shape[1:]]
        found = list(tensors[name].shape) if name in tensors else []
        if name == "window_counts" and found[-2:-1] == [1]:
            shape[-2] = 1  # of all pairs together
        if found != shape:
            raise ArtefactError(
                f"{source} must hold '{name}' of shape {tuple(shape)}, found "
                f"{tuple(found) or 'nothing'}. Probe again."
            )
    return {name: narrow(name, tensors[name].clone()) for name in like}


def digest_sums(head: Any, tensors: Mapping[str, Tensor]) -> str:
    """First 16 hex digits of the SHA-256 of JSON values and of tensors, in the order of names."""
    found = hashlib.sha256(json.dumps(head).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        found.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]


def bins_below(threshold: float) -> int:
    """Number of bins that lie below the threshold.

    Raises:
        RecipeError: the threshold is out of range or no multiple of 0.01.
    """
    hundredths = round(threshold * 100) if math.isfinite(threshold) else 1
    if not (-100 < hundredths <= 0) or abs(threshold * 100 - hundredths) > 1e-6:
        raise RecipeError(
            f"The threshold S must lie in (-1, 0] and be a multiple of 0.01, got {threshold}. "
            "Recon uses values from -0.1 to 0."
        )
    return hundredths + 100
