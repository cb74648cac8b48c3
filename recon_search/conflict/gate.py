"""A gate: does anything in a probe speak for splitting at all?"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from recon_search.conflict.reliability import draw_blocks
from recon_search.conflict.rules import Reading, check_measured, find_rule
from recon_search.conflict.scores import ConflictScores
from recon_search.conflict.sums import BLOCKS, N_HALVES, up_to_most

N_DRAWS = 100
"""Bootstrap samples."""

LEVEL = 0.95
"""Of the interval."""

BALANCE = 0.5
"""The share of conflict of gradients that know nothing of each other."""


@dataclass(frozen=True)
class Gate:
    """What the tasks' gradients in the layers that would be split are to each other.

    Attributes:
        k: how many layers would be split.
        share: of conflict; nan where the tasks' gradients meet nowhere; see `measure_gate`.
        interval: of it, by bootstrap; nan likewise.
    """

    k: int
    share: float
    interval: tuple[float, float]

    @property
    def advice(self) -> Literal["split", "do not split", "cannot tell"]:
        """On which side of balance the whole interval lies."""
        low, high = self.interval
        if high < BALANCE:
            return "do not split"
        return "split" if low > BALANCE else "cannot tell"


def measure_gate(
    scores: ConflictScores, rule: str, reading: Reading, k: int, seed: int = 0
) -> Gate:
    """Measure which share of the tasks' inner products is conflict, in the top k layers.

    With G_ij the inner product of the gradients of two tasks in a layer at a step, N_i and N_j
    their norms over the network, the share is the sum of relu(-G_ij) / (N_i N_j) by that of
    |G_ij| / (N_i N_j), over the steps of the reading, the pairs and the layers. It is 0 where the
    tasks never conflict, 1 where they always do, and 1/2 where one is as likely as the other, as of
    independent gradients, in however many dimensions. In given layers scaling a task's loss changes
    nothing, nor does the order of tasks; turning one of two tasks' gradients round gives 1 - share.

    To first order, copies of a layer for every task lower the losses of a step by more than the
    shared layer does if and only if the inner products are negative on the whole (the rule `gain`),
    which is a share above 1/2: below, the tasks' gradients help each other even in the layers that
    conflict most, and what a split gives comes from elsewhere, as from more parameters.

    The worst layers by chance would seem worse than they are, so they are chosen by one half of the
    steps and measured by the other, and the other way round. The interval is of the bootstrap of
    `measure_reliability`: of one seed it is too narrow.

    Args:
        scores: of a probe.
        rule: name of a rule, by which the layers are chosen.
        reading: how the scores are read.
        k: how many layers would be split; brought into [1, L].
        seed: of the bootstrap, and of orders at random.

    Raises:
        RecipeError: as `rules.rank`; by a rule that does not measure no steps give nan.
    """
    found = find_rule(rule)
    check_measured(scores, found, reading)
    inside = reading.blocks()
    k = min(max(k, 1), len(scores.layers))
    halves = []
    for half in range(N_HALVES):
        mask = torch.zeros(BLOCKS, dtype=torch.float64)
        mask[:, half] = 1.0
        halves.append(mask)

    scale = up_to_most((scores.blocks("pair_steps") * inside[..., None]).sum((0, 1, 2)))  # (pairs,)
    against = (scores.blocks("mass") * scale).sum(-1)  # (probes, windows, halves, L)
    on_balance = (scores.blocks("inner") * scale).sum(-1)

    def share(weights: Tensor) -> float:
        conflict = whole = 0.0
        for chosen_by, measured_by in (halves, halves[::-1]):
            values = found.evaluate(scores, replace(reading, weights=weights * chosen_by))
            top = values.cpu().argsort(descending=True, stable=True)[:k]
            counted = (inside * weights * measured_by)[..., None]
            negative = float((against[..., top] * counted).sum())
            conflict += negative
            whole += 2 * negative + float((on_balance[..., top] * counted).sum())  # sum of |G|
        return conflict / whole if whole > 0 else math.nan

    generator = torch.Generator().manual_seed(seed)
    drawn = [share(draw_blocks(scores.n_probes, inside, generator)) for _ in range(N_DRAWS)]
    known = torch.tensor([value for value in drawn if not math.isnan(value)], dtype=torch.float64)
    interval = math.nan, math.nan
    if len(known):
        ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
        low, high = known.quantile(ends).tolist()
        interval = low, high
    return Gate(k, share(torch.ones(BLOCKS, dtype=torch.float64)), interval)
