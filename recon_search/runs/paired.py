"""Differences between networks trained over the same seeds: intervals, p values, what they miss."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.stats import chi2, norm, t, ttest_1samp

from recon_search.records import STRICT
from recon_search.tasks.scoring import mean_and_deviation

SIGNIFICANCE = 0.05
"""Error rate of a family of tests, and what confidence intervals leave out."""

POWER = 0.8
"""Share of runs in which a difference is found that is called detectable."""

GRID = 2000
"""Sample deviations over which the power of a test is averaged."""


@dataclass(frozen=True)
class Difference:
    """A mean over seeds of paired differences, and how far it can be trusted.

    All but the mean and the deviation are None for fewer than two seeds, where all differences are
    equal (nothing tells then how far others would scatter), and where one is no number.

    Attributes:
        mean: of the differences.
        deviation: their sample standard deviation.
        interval: 95 % confidence interval of the mean, by Student's t.
        p_value: two-sided, of the paired t test.
        adjusted: `p_value` after Holm's correction (1979) over its family of comparisons.
        detectable: smallest true difference that such a test, uncorrected, finds in four of five
            runs with this scatter and as many seeds.
    """

    __pydantic_config__ = STRICT

    mean: float
    deviation: float
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    adjusted: float | None = None
    detectable: float | None = None

    @property
    def decisive_p(self) -> float | None:
        """The p value that decides: the corrected one, where there is one."""
        return self.p_value if self.adjusted is None else self.adjusted

    @property
    def is_significant(self) -> bool:
        """Whether it is told from 0 beside all others of its family."""
        known = self.decisive_p
        return known is not None and known < SIGNIFICANCE and self.mean != 0


def paired(values: Sequence[float], reference: Sequence[float]) -> Difference:
    """Return `values` minus `reference`, paired by seed; without a correction.

    Args:
        values: one a seed.
        reference: as many.

    Examples:
        >>> gain = paired([1.0, 0.5, 1.5], [-1.0, -1.5, -1.0])
        >>> gain.mean.__round__(2), gain.is_significant
        (2.17, True)
        >>> [round(end, 2) for end in gain.interval]
        [1.45, 2.88]
    """
    differences = [a - b for a, b in zip(values, reference, strict=True)]
    if not all(map(math.isfinite, differences)):
        return Difference(statistics.fmean(differences), math.nan)
    found = Difference(*mean_and_deviation(differences))
    if len(values) < 2:
        return found
    largest = max(map(abs, [*values, *reference]))
    if max(differences) - min(differences) <= 1e-12 * largest:  # equal up to rounding
        return found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of differences that are nearly equal
        test = ttest_1samp(differences, 0.0)
    low, high = test.confidence_interval(1 - SIGNIFICANCE)
    return replace(
        found,
        interval=(float(low), float(high)),
        p_value=float(test.pvalue),
        detectable=detectable(found.deviation, len(values)),
    )


def mean_of(values: Sequence[float]) -> Difference:
    """Return the mean of values, one a seed, as a difference from zero."""
    return paired(values, [0.0] * len(values))


def adjust(family: Sequence[Difference | None]) -> list[Difference | None]:
    """Correct the p values of a family of comparisons by Holm's step-down procedure.

    The i-th smallest of m is multiplied by m - i + 1, is at least as large as the one before it,
    and at most 1 (Holm, Scandinavian Journal of Statistics 6, 1979). What has no p value is not of
    the family.

    Examples:
        >>> family = [Difference(1.0, 1.0, p_value=p) for p in (0.04, 0.01)]
        >>> [each.adjusted for each in adjust(family)]
        [0.04, 0.02]
    """
    known = {place: each for place, each in enumerate(family) if each and each.p_value is not None}
    order = sorted(known, key=lambda place: known[place].p_value or 0.0)
    found, least = list(family), 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * (known[place].p_value or 0.0)))
        found[place] = replace(known[place], adjusted=least)
    return found


def detectable(deviation: float, n: int) -> float:
    """Return the smallest true difference that a paired t test finds with a power of `POWER`.

    The power is that for every sample deviation, averaged over its chi distribution; scipy's
    noncentral t is no number where few pairs need a large effect.

    Args:
        deviation: of single differences, above 0; taken for the true one.
        n: pairs, at least two.
    """
    shares = (np.arange(GRID) + 0.5) / GRID
    scatter = np.sqrt(chi2.ppf(shares, n - 1) / (n - 1))  # sample by true deviation, (GRID,)
    bounds = t.ppf(1 - SIGNIFICANCE / 2, n - 1) * scatter

    def lack(effect: float) -> float:
        centre = effect * math.sqrt(n)
        return float(np.mean(norm.sf(bounds - centre) + norm.cdf(-bounds - centre))) - POWER

    return deviation * float(brentq(lack, 0.0, 20.0))  # 11.5 for two pairs, less for more
