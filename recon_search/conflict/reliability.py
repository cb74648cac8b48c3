"""How far a ranking can be trusted: agreement of its halves, and stability of its top k."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from scipy.stats import kendalltau
from torch import Tensor

from recon_search.conflict.rules import Reading, find_rule
from recon_search.conflict.scores import BLOCKS, N_HALVES, ConflictScores

N_BOOTSTRAP = 200


@dataclass(frozen=True)
class Reliability:
    """Agreement of a ranking with itself.

    Attributes:
        steps: measured steps that the ranking reads.
        tau: Kendall's tau-b between the values of the two halves, in [-1, 1]; nan where a half has
            no steps or all values are equal.
        overlap: share of the top k that both halves have in common.
        chance: the overlap that two random orders have, k / L.
        stability: mean share of the top k that a bootstrap sample of the probe's blocks also has
            on top, in [0, 1].
    """

    steps: int
    tau: float
    overlap: float
    chance: float
    stability: float


def measure_reliability(
    scores: ConflictScores, rule: str, reading: Reading, k: int, seed: int = 0
) -> Reliability:
    """Compare a rule's ranking with those of halves and bootstrap samples of the same probe.

    Steps alternate between the halves, so that they see the same parts of training and differ by
    noise alone. Bootstrap samples draw the blocks (windows x halves) of the reading with
    replacement.

    Args:
        scores: of a probe.
        rule: name of a rule.
        reading: how the scores are read.
        k: how many layers would be split; at least 1 is assumed.
        seed: of the bootstrap.
    """
    evaluate = find_rule(rule)
    steps = (scores.tensors["window_steps"].cpu() * reading.blocks()).sum()
    k = min(max(k, 1), len(scores.layers))

    def values(weights: Tensor) -> Tensor:
        return evaluate(scores, replace(reading, weights=weights))

    halves = []
    for half in range(N_HALVES):
        weights = torch.zeros(BLOCKS, dtype=torch.float64)
        weights[:, half] = 1.0
        halves.append(values(weights))
    whole = _top(values(torch.ones(BLOCKS, dtype=torch.float64)), k)

    generator = torch.Generator().manual_seed(seed)
    inside = reading.blocks().flatten().nonzero()[:, 0]
    kept = 0.0
    for _ in range(N_BOOTSTRAP):
        drawn = inside[torch.randint(len(inside), (len(inside),), generator=generator)]
        weights = torch.bincount(drawn, minlength=reading.blocks().numel()).view(BLOCKS)
        kept += len(whole & _top(values(weights.double()), k)) / k
    return Reliability(
        steps=int(steps),
        tau=float(kendalltau(*(half.numpy() for half in halves)).statistic),
        overlap=len(_top(halves[0], k) & _top(halves[1], k)) / k,
        chance=k / len(scores.layers),
        stability=kept / N_BOOTSTRAP,
    )


def _top(values: Tensor, k: int) -> set[int]:
    return set(values.argsort(descending=True, stable=True)[:k].tolist())
