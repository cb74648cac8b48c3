"""Rules that rank layers: scores in, layers in order out, worst first.

A rule is a function of the scores and a `Reading` that gives each layer a value, shape (L,); the
layer with the highest value is split first, ties keep graph order, and a layer with value -inf is
not split at all. For more than two tasks, values are summed over pairs. Rules that measure are
means over the measured steps of the reading's blocks (windows and halves of the probe).
"""

from __future__ import annotations

import math
import random as stdlib_random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recon_search.conflict.scores import BLOCKS, N_WINDOWS, ConflictScores
from recon_search.errors import RecipeError, nearest


@dataclass(frozen=True)
class Reading:
    """How scores are read.

    Attributes:
        threshold: S, for rules that count.
        window: the part of the probe that counts, in tenths within [0, 1].
        seed: of random orders.
        weights: how often each block of the scores, (windows, halves) or (probes, windows, halves),
            counts beside the window; None: once. Halves and bootstrap samples are such weights.
    """

    threshold: float = 0.0
    window: tuple[float, float] = (0.0, 1.0)
    seed: int = 0
    weights: Tensor | None = None

    def blocks(self) -> Tensor:
        """How often each block counts, float64; of the shape of `weights`, or (windows, halves)."""
        tenths = [edge * N_WINDOWS for edge in self.window]
        start, stop = (round(tenth) if math.isfinite(tenth) else -1 for tenth in tenths)
        is_whole = abs(tenths[0] - start) < 1e-6 and abs(tenths[1] - stop) < 1e-6
        if not (is_whole and 0 <= start < stop <= N_WINDOWS):
            raise RecipeError(
                f"A probe window must be [start, stop] in tenths within [0, 1], got "
                f"{list(self.window)}. [0.6, 1.0] reads the last 40 %."
            )
        inside = torch.zeros(BLOCKS, dtype=torch.float64)
        inside[start:stop] = 1.0
        return inside if self.weights is None else inside * self.weights


Rule = Callable[[ConflictScores, Reading], Tensor]


def count(scores: ConflictScores, reading: Reading) -> Tensor:
    """Steps with cos < S: the S-conflict score (Recon, arXiv 2302.11289, Definition 3)."""
    return _sum(scores.blocks("counts", reading.threshold), reading)


def projection(scores: ConflictScores, reading: Reading) -> Tensor:
    """Mean of relu(-cos) min(n_i, n_j) / sqrt(N_i N_j): what PCGrad removes, relative length."""
    return _mean(scores, "projection", reading)


def mass(scores: ConflictScores, reading: Reading) -> Tensor:
    """Mean of relu(-G_ij) / (N_i N_j): conflicting inner product, relative."""
    return _mean(scores, "mass", reading)


def gain(scores: ConflictScores, reading: Reading) -> Tensor:
    """Mean of -2 G_ij / (N_i N_j), signed: first-order loss decrease by a private copy."""
    return -2.0 * _mean(scores, "inner", reading)


def least(scores: ConflictScores, reading: Reading) -> Tensor:
    """Control: the layers that conflict least, by `count`."""
    return -count(scores, reading)


def first_k(scores: ConflictScores, reading: Reading) -> Tensor:
    """Control: the first layers of the network."""
    return -torch.arange(len(scores.layers), dtype=torch.float64)


def random(scores: ConflictScores, reading: Reading) -> Tensor:
    """Control: layers in an order drawn from the seed."""
    order = list(range(len(scores.layers)))
    stdlib_random.Random(reading.seed).shuffle(order)
    return torch.tensor(order, dtype=torch.float64)


def smallest_first(scores: ConflictScores, reading: Reading) -> Tensor:
    """Control: the layers with the fewest parameters."""
    return -torch.tensor(n_parameters(scores), dtype=torch.float64)


def norm_only(scores: ConflictScores, reading: Reading) -> Tensor:
    """Control: normalisation layers in graph order; no other layer is split."""
    is_norm = torch.tensor([bool(layer["is_norm"]) for layer in _layer_infos(scores)])
    return first_k(scores, reading).where(is_norm, -torch.inf)


RULES: dict[str, Rule] = {
    "count": count,
    "projection": projection,
    "mass": mass,
    "gain": gain,
    "least": least,
    "first-k": first_k,
    "random": random,
    "smallest-first": smallest_first,
    "norm-only": norm_only,
}


MEASURED = frozenset(["count", "projection", "mass", "gain", "least"])
"""Rules that read measured steps."""


def find_rule(name: str) -> Rule:
    """Look a rule up by name.

    Raises:
        RecipeError: no rule has that name.
    """
    if name not in RULES:
        raise RecipeError(
            f"The ranking rule must be one of {', '.join(RULES)}, got '{name}'."
            f"{nearest(name, RULES)}"
        )
    return RULES[name]


def n_steps(scores: ConflictScores, reading: Reading) -> int:
    """Measured steps that a reading reads."""
    return int(_sum(scores.tensors["window_steps"].double()[..., None], reading))


def rank(scores: ConflictScores, rule: str, reading: Reading) -> list[tuple[str, float]]:
    """Order the layers by a rule; each with its value, layers the rule excludes left out.

    Raises:
        RecipeError: the rule is unknown, or it measures and the reading holds no measured step.
    """
    values = find_rule(rule)(scores, reading).cpu()
    if rule in MEASURED and not n_steps(scores, reading):
        raise RecipeError(
            f"Rule '{rule}' needs measured steps in the window {list(reading.window)}, found none "
            f"of {scores.steps} there. Lower probe.every, probe longer, or widen probe.window."
        )
    order = values.argsort(descending=True, stable=True).tolist()
    ranked = [(scores.layers[index], float(values[index])) for index in order]
    return [(layer, value) for layer, value in ranked if value > -torch.inf]


def within_budget(
    ranking: Sequence[str], scores: ConflictScores, n_parameters_added: int
) -> list[str]:
    """Take layers in order while private copies for all tasks add at most that many parameters.

    A layer that does not fit is passed over, so that a large layer does not end the selection.
    """
    sizes = dict(zip(scores.layers, n_parameters(scores), strict=True))
    chosen, left = [], n_parameters_added
    for layer in ranking:
        cost = sizes[layer] * (len(scores.tasks) - 1)
        if cost <= left:
            chosen.append(layer)
            left -= cost
    return chosen


def n_parameters(scores: ConflictScores) -> list[int]:
    """Parameters of each layer, as the probe recorded them."""
    return [int(layer["n_parameters"]) for layer in _layer_infos(scores)]


def _layer_infos(scores: ConflictScores) -> list[dict[str, Any]]:
    infos = scores.metadata.get("layer_infos")
    if infos is None:
        raise RecipeError(
            "This rule needs the layers' types and sizes, found none in the scores. "
            "Give ConflictScores(metadata={'layer_infos': ...}) as `recon-search probe` does."
        )
    return list(infos)


def _mean(scores: ConflictScores, name: str, reading: Reading) -> Tensor:
    """Mean over the steps of the reading's blocks: (L,)."""
    return _sum(scores.blocks(name), reading) / max(1, n_steps(scores, reading))


def _sum(blocks: Tensor, reading: Reading) -> Tensor:
    """Add up blocks (probes, windows, halves, L), each as often as the reading says: (L,)."""
    weights = reading.blocks().expand(blocks.shape[:-1])
    return torch.einsum("pwh,pwhl->l", weights, blocks.cpu())
