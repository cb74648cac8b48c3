"""Losses over those entries of targets that hold a label."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from recon_search.tasks.metrics import IGNORED


def mean_of_known(losses: Tensor, known: Tensor) -> Tensor:
    """Return the mean of losses where `known`, nan where nothing is."""
    return torch.where(known, losses, 0.0).sum() / known.sum()


def directions(vectors: Tensor) -> Tensor:
    """Scale vectors (B, n, ...) to length 1; zero stays zero.

    torch.nn.functional.normalize does the same, several times slower along the channels of maps.
    """
    length = vectors.square().sum(1, keepdim=True).clamp(min=1e-24).sqrt()
    return vectors / length


def yes_or_no(
    output: Tensor, target: Tensor, positive_weight: float | Sequence[float] = ()
) -> Tensor:
    """Binary cross-entropy, the mean over labelled entries.

    Args:
        output: scores (B, n).
        target: of as many entries, 0, 1, or `IGNORED`.
        positive_weight: of the entries that are 1, or of those of each column; not of the mean's
            divisor.
    """
    target = target.reshape(output.shape)
    known = target != IGNORED
    weight = None
    if positive_weight not in ((), 1):
        weight = torch.tensor(positive_weight, device=output.device)
    losses = F.binary_cross_entropy_with_logits(
        output.float(), (target == 1).float(), pos_weight=weight, reduction="none"
    )
    return mean_of_known(losses, known)
