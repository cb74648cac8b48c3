"""What a comparison has found, in sentences that a person understands."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from recon_search.runs.comparison import Comparison, Row
from recon_search.runs.paired import Difference, paired

_NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Prices:
    """Costs relative to joint training.

    Attributes:
        parameters: of the split network.
        flops: of the split network.
        single_parameters: of separate networks, one a task, together.
        single_flops: likewise.
    """

    parameters: float
    flops: float
    single_parameters: float
    single_flops: float


def the_split(comparison: Comparison) -> Row:
    """Return the row that is judged."""
    return next(row for row in comparison.rows if row.role == "split")


def networks(comparison: Comparison) -> list[Row]:
    """Return the rows but for separate networks, which are the end of every scale."""
    return [row for row in comparison.rows if row.role != "separate"]


def its_joint(comparison: Comparison) -> Row:
    """Return the unsplit network that the split one is to be held against: of its method if any."""
    split = the_split(comparison)
    joint = [row for row in comparison.rows if row.role == "joint"]
    return next((row for row in joint if row.method == split.method), comparison.rows[0])


def prices(comparison: Comparison) -> Prices:
    """Return what the split and separate networks cost.

    Where the FLOPs of single-task models were not kept, they are taken for those of joint training
    each, which is right but for the heads.
    """
    base, split = comparison.rows[0], the_split(comparison)
    flops = comparison.single_flops
    return Prices(
        split.n_parameters / base.n_parameters,
        split.flops / base.flops,
        comparison.single_parameters / base.n_parameters,
        len(comparison.single) if flops is None else flops / base.flops,
    )


@dataclass(frozen=True)
class Answer:
    """What a page opens with.

    Attributes:
        verdict: whether the split pays, for what kind of network.
        gain: by how much, and how sure that is.
        price: what it costs, and what separate networks do.
        more: what else a buyer should know.
    """

    verdict: str
    gain: str
    price: str
    more: str


def answer(comparison: Comparison, n_split: int, n_layers: int, switch: str = "") -> Answer:
    """Say whether the split pays: what changes, how sure that is, what it costs.

    Args:
        comparison: with one row that is judged.
        n_split: layers that are private.
        n_layers: of how many.
        switch: after which epoch the judged networks are split, as "epoch 3"; "" where they begin
            so.
    """
    split, joint, cost = the_split(comparison), its_joint(comparison), prices(comparison)
    gain = paired(split.delta_m, joint.delta_m)
    before, after = statistics.fmean(joint.delta_m), statistics.fmean(split.delta_m)
    apart = f"{word(len(comparison.single))} separate networks"
    private = f"{word(n_split)} of {n_layers} layers private"
    if switch:
        private += f", split while it trains, after {switch}"
    verdict = (
        f"{_sure(gain, len(comparison.seeds))}: with {private}, one network for all tasks is "
        f"{_standing(after, apart)}; without a split it is {_standing(before, 'they are')}."
    )
    price = (
        f"It costs {cost.parameters:.2f}x the parameters and {cost.flops:.2f}x the FLOPs of that "
        f"unsplit network; {apart} cost {cost.single_parameters:.2f}x and "
        f"{cost.single_flops:.2f}x."
    )
    more = " ".join([*_controls(comparison), *_buy(after, cost)])
    return Answer(verdict, _gained(gain, len(comparison.seeds)), price, more)


def word(number: int) -> str:
    """Write a small number as a word."""
    return _NUMBERS[number] if number < len(_NUMBERS) else str(number)


def said(interval: tuple[float, float]) -> str:
    """Say where an interval begins and ends."""
    return f"{interval[0]:+.2f} to {interval[1]:+.2f}"


def _standing(delta_m: float, apart: str) -> str:
    """Say it beside separate networks: "1.3 % worse than two separate networks"."""
    if math.isnan(delta_m):
        return f"not to be held against {apart}"
    if abs(delta_m) < 0.05:
        return f"as good as {apart}"
    return f"{abs(delta_m):.1f} % {'better' if delta_m > 0 else 'worse'} than {apart}"


def _sure(gain: Difference, n_seeds: int) -> str:
    if n_seeds < 2 or gain.interval is None:
        return "Whether splitting helps cannot be told"
    if gain.interval[0] <= 0 <= gain.interval[1]:
        return "Splitting cannot be told from not splitting"
    return "Splitting helps" if gain.mean > 0 else "Splitting harms"


def _gained(gain: Difference, n_seeds: int) -> str:
    """Say the difference, and what chance has to do with it."""
    change = f"The split changes delta_m by {gain.mean:+.2f} points"
    if n_seeds < 2:
        return f"{change} over 1 seed, which does not tell a gain from luck."
    if gain.interval is None:
        return f"{change} over {n_seeds} seeds, which do not show how far others would scatter."
    holds = gain.interval[0] <= 0 <= gain.interval[1]
    chance = "chance alone may do that" if holds else "chance alone would hardly do that"
    return f"{change} (95 % interval {said(gain.interval)}, {n_seeds} seeds): {chance}."


def _controls(comparison: Comparison) -> list[str]:
    """Say how the split stands against what is split or widened without looking at conflicts."""
    controls = [row for row in comparison.rows if row.role == "control"]
    if not controls:
        return []
    beaten = sum(row.outcome == "beaten" for row in controls)
    better = sum(row.outcome == "better" for row in controls)
    n = len(controls)
    if beaten == n:
        return [f"It beats {'its only control' if n == 1 else 'every control'}."]
    text = f"Of {word(n)} control{'s' * (n > 1)} it beats {word(beaten)}"
    return [f"{text}, and {word(better)} beat{'s' * (better == 1)} it." if better else f"{text}."]


def _buy(after: float, cost: Prices) -> list[str]:
    """Say it where separate networks are the better buy."""
    if after > 0 or cost.flops < cost.single_flops - 0.005:
        return []
    if cost.parameters >= cost.single_parameters - 0.005:
        return ["Separate networks are the better buy: no dearer, and by definition at 0 %."]
    return ["It saves parameters, not computation: separate networks need no more FLOPs."]
