"""Rules that rank layers: scores in, layers in order out, worst first.

A rule gives each layer a value from the scores and a `Reading`; the layer with the highest value is
split first, ties keep graph order, and a layer with value -inf is not split at all. For more than
two tasks, values are summed over pairs. Rules that measure are means over the measured steps of the
reading's blocks (windows and halves of the probe), for each pair over its own.
"""

from __future__ import annotations

import math
import random as stdlib_random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from recon_search.conflict.scores import ConflictScores
from recon_search.conflict.sums import BLOCKS, N_WINDOWS, up_to_most
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

    @property
    def is_whole(self) -> bool:
        """Whether every block counts once."""
        return self.weights is None and bool((self.blocks() == 1).all())


Reads = Literal["counts", "sums", "order", "types", "sizes", "seed"]
"""What a rule looks at: counts of cosines below S, windowed sums, the layers' places in the graph,
their types, their numbers of parameters, the seed."""


@dataclass(frozen=True)
class Rule:
    """One rule that ranks layers.

    Attributes:
        name: as recipes name it.
        evaluate: gives each layer its value, float64 (L,), the worst the highest; -inf excludes.
        reads: what it looks at.
        is_control: whether it is there to be beaten.
        label: in tables, with `{name}`, and `{k}` or `{layers}`, their number.
    """

    name: str
    evaluate: Callable[[ConflictScores, Reading], Tensor]
    reads: frozenset[Reads]
    is_control: bool = False
    label: str = "rule {name}, {layers}"

    @property
    def measures(self) -> bool:
        """Whether it reads measured steps, of every pair of tasks."""
        return not self.reads.isdisjoint({"counts", "sums"})

    @property
    def reads_threshold(self) -> bool:
        """Whether its order depends on S."""
        return "counts" in self.reads

    @property
    def needs_infos(self) -> bool:
        """Whether the scores' metadata must hold `layer_infos`."""
        return not self.reads.isdisjoint({"types", "sizes"})

    @property
    def is_random(self) -> bool:
        """Whether its order depends on the reading's seed."""
        return "seed" in self.reads

    def describe(self, k: int) -> str:
        """Name a split of k layers chosen by it, for tables."""
        return self.label.format(name=self.name, k=k, layers=count_layers(k))


def count_layers(k: int) -> str:
    """Say how many layers."""
    return f"{k} layer" if k == 1 else f"{k} layers"


def count(scores: ConflictScores, reading: Reading) -> Tensor:
    """Steps with cos < S: the S-conflict score (Recon, arXiv 2302.11289, Definition 3).

    Pairs that met less often than others are scaled up, as in `ConflictScores.totals`.
    """
    if reading.is_whole:
        return scores.totals(reading.threshold).cpu()
    return _totals(scores, "counts", reading)[0]


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


def last_k(scores: ConflictScores, reading: Reading) -> Tensor:
    """Control: the last layers of the network, which makes the heads deeper."""
    return torch.arange(len(scores.layers), dtype=torch.float64)


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


def _rule(
    name: str,
    evaluate: Callable[[ConflictScores, Reading], Tensor],
    *reads: Reads,
    control: str | None = None,
) -> Rule:
    """Make a record; `control` is the label of one that is there to be beaten."""
    if control is None:
        return Rule(name, evaluate, frozenset(reads))
    return Rule(name, evaluate, frozenset(reads), is_control=True, label=control)


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        _rule("count", count, "counts"),
        _rule("projection", projection, "sums"),
        _rule("mass", mass, "sums"),
        _rule("gain", gain, "sums"),
        _rule("least", least, "counts", control="least conflict {k}"),
        _rule("first-k", first_k, "order", control="first {layers}"),
        _rule("last-k", last_k, "order", control="last {layers}"),
        _rule("random", random, "seed", control="random {layers}"),
        _rule("smallest-first", smallest_first, "sizes", control="smallest {layers}"),
        _rule("norm-only", norm_only, "types", "order", control="norm layers only"),
    )
}
"""Every rule, by name."""


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
    return int(_sum(scores.blocks("window_steps")[..., None], reading))


def rank(scores: ConflictScores, rule: str, reading: Reading) -> list[tuple[str, float]]:
    """Order the layers by a rule; each with its value, layers the rule excludes left out.

    Raises:
        RecipeError: the rule is unknown, or it measures and the reading holds no measured step, or
            none of a pair of tasks.
    """
    found = find_rule(rule)
    check_measured(scores, found, reading)
    values = found.evaluate(scores, reading).cpu()
    order = values.argsort(descending=True, stable=True).tolist()
    ranked = [(scores.layers[index], float(values[index])) for index in order]
    return [(layer, value) for layer, value in ranked if value > -torch.inf]


def check_measured(scores: ConflictScores, rule: Rule, reading: Reading) -> None:
    """Refuse a rule that measures where the reading lacks steps, of all pairs or of one.

    Raises:
        RecipeError: naming the window, and the first pair without steps.
    """
    window = f"in the window {list(reading.window)}"
    reading.blocks()
    if not rule.measures:
        return
    if not n_steps(scores, reading):
        raise RecipeError(
            f"Rule '{rule.name}' needs measured steps {window}, found none of {scores.steps} "
            "there. Lower probe.every, probe longer, or widen probe.window."
        )
    scores.check_pairs(_pair_steps(scores, reading), f" {window} for rule '{rule.name}'")


def within_budget(ranking: Sequence[str], costs: Mapping[str, int], budget: int) -> list[str]:
    """Take layers in order while private copies for all tasks add at most that many parameters.

    A layer that does not fit is passed over, so that a large layer does not end the selection.

    Args:
        ranking: the layers.
        costs: parameters that each adds.
        budget: of all together.
    """
    chosen, left = [], budget
    for layer in ranking:
        if costs[layer] <= left:
            chosen.append(layer)
            left -= costs[layer]
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
    """Mean over each pair's steps in the reading's blocks, added over the pairs: (L,)."""
    totals, most = _totals(scores, name, reading)
    return totals / max(1.0, most)


def _totals(scores: ConflictScores, name: str, reading: Reading) -> tuple[Tensor, float]:
    """Sums over the reading's blocks, added over the pairs, (L,), and the steps they are of.

    Those are the steps of the pair that met most often; sums of the others are scaled up to them.
    """
    blocks = scores.blocks(name, reading.threshold)  # (probes, windows, halves, L, pairs or 1)
    steps = _pair_steps(scores, reading)
    most = max(steps.tolist(), default=0.0)
    scale = up_to_most(steps)
    if blocks.shape[-1] != len(steps):  # of all pairs together
        scale = torch.tensor([most * len(steps) / max(1.0, float(steps.sum()))])
    return _sum((blocks * scale).sum(-1), reading), most


def _pair_steps(scores: ConflictScores, reading: Reading) -> Tensor:
    """How many steps of each pair a reading reads, float64 (pairs,)."""
    return _sum(scores.blocks("pair_steps"), reading)


def _sum(blocks: Tensor, reading: Reading) -> Tensor:
    """Add up blocks (probes, windows, halves, n), each as often as the reading says: (n,)."""
    weights = reading.blocks().expand(blocks.shape[:-1])
    return torch.einsum("pwh,pwhl->l", weights, blocks)
