"""How far a ranking can be trusted: what its halves share, and what another probe would share."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from scipy.stats import kendalltau
from torch import Tensor

from recon_search.conflict.rules import Reading, check_measured, find_rule, n_steps
from recon_search.conflict.scores import ConflictScores
from recon_search.conflict.sums import BLOCKS, N_HALVES

N_PAIRS = 100
"""Pairs of bootstrap samples."""


@dataclass(frozen=True)
class Reliability:
    """Agreement of a ranking with itself.

    Attributes:
        steps: measured steps that the ranking reads.
        tau: Kendall's tau-b between the values of the two halves, in [-1, 1]; nan where a half has
            no steps, all values are equal or there is one layer.
        overlap: share of the top k that both halves have in common.
        chance: the overlap that two random orders have, k / L.
        stability: share of the top k that another probe of this size would share, in [0, 1]; see
            `measure_reliability`. Nan where no layer differs from another.
    """

    steps: int
    tau: float
    overlap: float
    chance: float
    stability: float


def measure_reliability(
    scores: ConflictScores, rule: str, reading: Reading, k: int, seed: int = 0
) -> Reliability:
    """Compare a rule's ranking with itself: between halves, and between bootstrap samples.

    Steps alternate between the halves, so that they see the same parts of training and differ by
    noise alone.

    Two bootstrap samples differ at least as much as two independent probes do, and the stability is
    the mean over pairs of samples of the share of the top k that both have. (A sample and the
    original differ by half the variance only, and agree better than probes do.) A sample of R
    seeds' probes draws R - 1 of them with replacement, which makes up for there being few (Rao and
    Wu, JASA 83, 1988), and in each of them blocks (windows x halves) of the reading: noise within
    seeds counts twice, which is cautious, and keeps pairs of few seeds from being equal. One seed
    does not show how far seeds differ: its stability is too high. What is foretold is held against
    what independent probes share by `tests/benchmarks/bench_stability.py`.

    Args:
        scores: of a probe.
        rule: name of a rule.
        reading: how the scores are read.
        k: how many layers would be split; at least 1 is assumed.
        seed: of the bootstrap.

    A pair of tasks that a half or a sample happens not to hold adds nothing to its values.

    Raises:
        RecipeError: as `rules.rank`.
    """
    found = find_rule(rule)
    check_measured(scores, found, reading)
    inside = reading.blocks()
    k = min(max(k, 1), len(scores.layers))

    def values(weights: Tensor) -> Tensor:
        return found.evaluate(scores, replace(reading, weights=weights))

    halves = []
    for half in range(N_HALVES):
        weights = torch.zeros(BLOCKS, dtype=torch.float64)
        weights[:, half] = 1.0
        halves.append(values(weights))

    whole = values(torch.ones(BLOCKS, dtype=torch.float64))
    is_flat = bool((whole == whole[0]).all())
    generator = torch.Generator().manual_seed(seed)
    tops = [
        _top(values(draw_blocks(scores.n_probes, inside, generator)), k) for _ in range(2 * N_PAIRS)
    ]
    shares = [len(a & b) / k for a, b in zip(tops[::2], tops[1::2], strict=True)]
    tau = math.nan
    if len(whole) > 1:
        tau = float(kendalltau(*(half.numpy() for half in halves)).statistic)
    return Reliability(
        steps=n_steps(scores, reading),
        tau=tau,
        overlap=len(_top(halves[0], k) & _top(halves[1], k)) / k,
        chance=k / len(scores.layers),
        stability=math.nan if is_flat else sum(shares) / N_PAIRS,
    )


def draw_blocks(n_probes: int, inside: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a bootstrap sample of the blocks `inside`: how often each counts, (probes, *BLOCKS)."""
    open_blocks = inside.flatten().nonzero()[:, 0]
    weights = torch.zeros(n_probes, inside.numel(), dtype=torch.float64)
    n_drawn = max(1, n_probes - 1)
    for probe in torch.randint(n_probes, (n_drawn,), generator=generator).tolist():
        drawn = open_blocks[torch.randint(len(open_blocks), open_blocks.shape, generator=generator)]
        weights[probe] += torch.bincount(drawn, minlength=inside.numel())
    return weights.view(n_probes, *BLOCKS)


def _top(values: Tensor, k: int) -> set[int]:
    return set(values.argsort(descending=True, stable=True)[:k].tolist())
