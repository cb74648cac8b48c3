"""Do two probes find the same layers? What their tops share, and each shares with itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.stats import kendalltau
from torch import Tensor

from recon_search.conflict.reliability import measure_reliability
from recon_search.conflict.rules import Reading, check_measured, find_rule
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import RecipeError

KS = (1, 3, 5, 10, 20, 40)
"""Sizes of tops that are looked at, where there are more layers."""

Ranked = ConflictScores | Mapping[str, float]
"""Scores, or a value a layer, the highest worst, as published tables of counts hold."""


@dataclass(frozen=True)
class Top:
    """What the first `k` layers of two rankings have in common.

    Attributes:
        k: how many layers.
        shared: names of those in both, in the order of the first.
        chance: share that two random orders have in common, k / L.
        stability: for each ranking the share that another probe like its own would have in common
            with it (see `Reliability`), which no other ranking can be asked to exceed; None for a
            table of counts, nan where no layer differs from another.
    """

    k: int
    shared: tuple[str, ...]
    chance: float
    stability: tuple[float | None, float | None]

    @property
    def share(self) -> float:
        """Share of the k layers that both have, in [0, 1]."""
        return len(self.shared) / self.k


@dataclass(frozen=True)
class Agreement:
    """How far two rankings of the same layers agree.

    Attributes:
        n_layers: how many layers there are.
        tau: Kendall's tau-b between the values, in [-1, 1]; nan where all of one are equal or there
            is one layer.
        tau_halves: of each ranking between two halves of its own steps, which are half as long;
            None for a table of counts.
        tops: for several k, smallest first.
    """

    n_layers: int
    tau: float
    tau_halves: tuple[float | None, float | None]
    tops: tuple[Top, ...]


def measure_agreement(
    first: Ranked, second: Ranked, rule: str, reading: Reading, ks: Sequence[int] = KS
) -> Agreement:
    """Compare two rankings of the layers of one backbone, whatever the data they come from.

    Args:
        first: scores, which are ranked, or a value a layer.
        second: as `first`.
        rule: that ranks scores.
        reading: how scores are read.
        ks: sizes of the tops; those of as many layers as there are, or more, are left out.

    Raises:
        RecipeError: the layers differ; or as `rules.rank`.
    """
    layers = _layers(first)
    if sorted(layers) != sorted(_layers(second)):
        alone = sorted(set(layers) ^ set(_layers(second)))
        raise RecipeError(
            f"Two rankings must be of the same layers, got {len(layers)} and "
            f"{len(_layers(second))}, of which {len(alone)} are in one alone, as '{alone[0]}'. "
            "Take two of one backbone."
        )
    values = [_values(ranked, layers, rule, reading) for ranked in (first, second)]
    orders = [
        [layers[place] for place in own.argsort(descending=True, stable=True)] for own in values
    ]
    sizes = sorted({k for k in ks if 0 < k < len(layers)})
    trusts = [
        [measure_reliability(ranked, rule, reading, k) for k in sizes or [1]]
        if isinstance(ranked, ConflictScores)
        else None
        for ranked in (first, second)
    ]
    tops = []
    for place, k in enumerate(sizes):
        shared = tuple(layer for layer in orders[0][:k] if layer in orders[1][:k])
        stable = [None if own is None else own[place].stability for own in trusts]
        tops.append(Top(k, shared, k / len(layers), (stable[0], stable[1])))
    halves = [None if own is None else own[0].tau for own in trusts]
    tau = float("nan")
    if len(layers) > 1:
        tau = float(kendalltau(values[0].numpy(), values[1].numpy()).statistic)
    return Agreement(len(layers), tau, (halves[0], halves[1]), tuple(tops))


def _layers(ranked: Ranked) -> list[str]:
    return list(ranked.layers if isinstance(ranked, ConflictScores) else ranked)


def _values(ranked: Ranked, layers: Sequence[str], rule: str, reading: Reading) -> Tensor:
    """A value a layer, float64, in the order of `layers`."""
    if not isinstance(ranked, ConflictScores):
        return torch.tensor([ranked[layer] for layer in layers], dtype=torch.float64)
    found = find_rule(rule)
    check_measured(ranked, found, reading)
    by_layer = dict(zip(ranked.layers, found.evaluate(ranked, reading).tolist(), strict=True))
    return torch.tensor([by_layer[layer] for layer in layers], dtype=torch.float64)
