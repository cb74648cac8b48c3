"""What splitting one layer at a time has found: benefits, and which rule foretells them."""

from __future__ import annotations

import itertools
import math
import statistics
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from scipy.stats import ConstantInputWarning, spearmanr

from recon_search import artefact
from recon_search.errors import ArtefactError
from recon_search.records import STRICT, fit
from recon_search.runs.paired import Difference

FORMAT = "recon-search/ablation/1"

MOST_CUTS = 500
"""Ways of cutting the seeds into halves that a ceiling is a mean of, at most."""


@dataclass(frozen=True)
class Ablated:
    """One layer, split alone.

    Attributes:
        layer: its name.
        delta_m: on test data, against the single-task models of the same seed, one value a seed.
        benefit: delta_m minus the joint network's, paired by seed; p values corrected over layers.
        n_parameters: of the split network, relative to the joint one's.
        flops: likewise, of one forward pass for all tasks.
    """

    __pydantic_config__ = STRICT

    layer: str
    delta_m: list[float]
    benefit: Difference
    n_parameters: float
    flops: float


@dataclass(frozen=True)
class Foretold:
    """How well a rule foretells the benefits.

    Attributes:
        rule: its name.
        values: that it gives the ablated layers, in their order; the highest is split first.
        ranks: of these layers among all of the backbone, 1 for the first.
        spearman: correlation with the mean benefits, in [-1, 1]; None where all values of either
            are equal or there are fewer than three layers.
        p_value: two-sided, of no correlation, for one rule by itself; None as above.
    """

    __pydantic_config__ = STRICT

    rule: str
    values: list[float]
    ranks: list[int]
    spearman: float | None
    p_value: float | None


@dataclass(frozen=True)
class Ceiling:
    """How far the benefits can be foretold at all, for the noise that they were measured with.

    Attributes:
        halves: Spearman's correlation of the mean benefits of one half of the seeds with those of
            the other, mean over the ways to cut them in halves (of an odd number one is larger).
        reliability: by Spearman and Brown, 2 r / (1 + r): the correlation with another measurement
            of as many seeds; 0 where `halves` is not positive.
        ceiling: its square root, the correlation that the true benefits would have with those
            measured: no rule can be expected to do better.
    """

    __pydantic_config__ = STRICT

    halves: float
    reliability: float
    ceiling: float


@dataclass(frozen=True)
class Ablation:
    """The content of `ablation.json`.

    Attributes:
        seeds: over which every network was trained.
        method: by which.
        joint: delta_m of the unsplit network, one value a seed.
        layers: those that were split, in graph order.
        rules: what foretells, measuring rules first.
        ceiling: None where there are fewer than two seeds or three layers, or a half shows no
            difference between layers.
        threshold: S of the rules that count.
        window: part of the probe that the rules read.
        n_layers: of the backbone that can be split.
        warning: why the single-task models may be no yardstick; empty if nothing speaks against.
    """

    __pydantic_config__ = STRICT

    seeds: list[int]
    method: str
    joint: list[float]
    layers: list[Ablated]
    rules: list[Foretold]
    ceiling: Ceiling | None
    threshold: float
    window: tuple[float, float]
    n_layers: int
    warning: str = field(default="")

    def save(self, path: Path) -> None:
        """Write JSON."""
        artefact.write_json(path, {"format": FORMAT, **asdict(self)})

    @classmethod
    def load(cls, path: Path) -> Ablation:
        """Read what `save` wrote.

        Raises:
            ArtefactError: the file is missing, damaged or of another format.
        """
        values = artefact.read_object(path, "ablation", FORMAT, finite=False)
        del values["format"]
        found = fit(cls, values, path, "An ablation", "Run `recon-search ablate` again.")
        n_seeds, n_layers = len(found.seeds), len(found.layers)
        lists = [("joint", len(found.joint), n_seeds)]
        lists += [(f"layer '{own.layer}'", len(own.delta_m), n_seeds) for own in found.layers]
        for own in found.rules:
            lists += [
                (f"rule '{own.rule}'", len(each), n_layers) for each in (own.values, own.ranks)
            ]
        for where, n, wanted in lists:
            if n != wanted:
                raise ArtefactError(
                    f"An ablation must hold a value for each of its {n_seeds} seeds and "
                    f"{n_layers} layers, {path} has {n} in {where}. Run `recon-search ablate` "
                    "again."
                )
        return found


def foretell(
    values: Sequence[float], benefits: Sequence[float]
) -> tuple[float | None, float | None]:
    """Return Spearman's correlation of a rule's values with the benefits, and its p value.

    Args:
        values: one a layer.
        benefits: as many.

    Returns:
        None for both where all of either are equal or there are fewer than three layers.
    """
    if len(values) < 3:
        return None, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        found = spearmanr(values, benefits)
    if math.isnan(found.statistic):
        return None, None
    return float(found.statistic), float(found.pvalue)


def find_ceiling(benefits: Sequence[Sequence[float]]) -> Ceiling | None:
    """Hold the benefits of one half of the seeds against those of the other.

    What is common to all layers of a seed, such as the joint network's own luck, changes no order
    and does not count.

    Args:
        benefits: for each layer one value a seed.

    Returns:
        None for fewer than two seeds or three layers, or where a half shows no difference between
        layers.
    """
    n_seeds = len(benefits[0]) if benefits else 0
    if n_seeds < 2:
        return None
    found = []
    for first in itertools.islice(_cuts(n_seeds), MOST_CUTS):
        second = [seed for seed in range(n_seeds) if seed not in first]
        means = [[statistics.fmean(own[seed] for seed in half) for own in benefits]
                 for half in (first, second)]  # fmt: skip
        correlation, _ = foretell(*means)
        if correlation is None:
            return None
        found.append(correlation)
    halves = statistics.fmean(found)
    reliability = max(0.0, 2 * halves / (1 + halves)) if halves > -1 else 0.0
    return Ceiling(halves, reliability, math.sqrt(reliability))


def _cuts(n_seeds: int) -> Iterator[tuple[int, ...]]:
    """Every way to cut seeds into two halves, once each."""
    every = itertools.combinations(range(n_seeds), n_seeds // 2)
    return every if n_seeds % 2 else (cut for cut in every if 0 in cut)
