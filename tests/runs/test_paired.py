"""Paired differences: against scipy, against the definition, and by simulation."""

import math
import random
import statistics
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recon_search.runs.paired import Difference, adjust, detectable, mean_of, paired


def p_value(values, reference):
    return paired(values, reference).p_value


@pytest.mark.parametrize("nan", [math.nan, math.inf])
def test_one_pair_that_is_no_number_leaves_no_p_value(nan):
    assert p_value([1.0, 2.0, nan], [0.0, 0.5, 0.0]) is None
    assert p_value([1.0, 2.0, 0.0], [0.0, 0.5, nan]) is None


def test_small_differences_are_no_rounding_where_the_values_are_small():
    scale = 1e-9
    found = p_value([1 * scale, 4 * scale, 2 * scale], [0.0, 1 * scale, 1 * scale])
    assert found == pytest.approx(stats.ttest_1samp([1.0, 3.0, 1.0], 0).pvalue)
    # Of these the largest value and not the smallest says what rounding is.
    assert p_value([1e6 + 1e-8, 1e-3], [1e6, 1e-3]) is None


@pytest.mark.parametrize(
    ("values", "reference"),
    [([1.0], [2.0]), ([1.0, 2.0], [1.0, 2.0]), ([3.0, 4.0], [1.0, 2.0])],
)
def test_there_is_no_p_value_without_pairs_or_without_spread(values, reference):
    assert p_value(values, reference) is None


def test_two_pairs_have_a_p_value():
    assert p_value([1.0, 2.0], [0.0, 3.0]) == pytest.approx(1.0)


@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize("seed", range(3))
def test_the_p_value_is_that_of_the_paired_t_test(n, seed):
    draw = random.Random(seed)
    values, reference = ([draw.gauss(0, 1) for _ in range(n)] for _ in range(2))
    differences = [a - b for a, b in zip(values, reference, strict=True)]
    t = statistics.fmean(differences) / (statistics.stdev(differences) / math.sqrt(n))
    expected = 2 * stats.t.sf(abs(t), df=n - 1)
    found = p_value(values, reference)
    assert found == pytest.approx(expected)
    assert found == pytest.approx(stats.ttest_rel(values, reference).pvalue)
    assert p_value(reference, values) == pytest.approx(found), "two-sided"
    assert p_value([v + 7 for v in values], [v + 7 for v in reference]) == pytest.approx(found)


@pytest.mark.filterwarnings("ignore:Precision loss")
@pytest.mark.parametrize(
    ("values", "reference"), [([0.3, 0.6], [0.1, 0.4]), ([1.3, 2.6, 3.0], [1.1, 2.4, 2.8])]
)
def test_differences_that_are_equal_up_to_rounding_have_no_p_value(values, reference):
    assert len({a - b for a, b in zip(values, reference, strict=True)}) > 1
    assert p_value(values, reference) is None


def test_an_interval_holds_what_the_test_does_not_reject():
    values, reference = [1.0, 4.0, 2.0, 5.0], [0.5, 2.0, 2.5, 3.0]
    found = paired(values, reference)
    for edge in found.interval:
        moved = [value - edge for value in values]
        assert p_value(moved, reference) == pytest.approx(0.05)
    assert found.interval[0] < found.mean < found.interval[1]


P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@given(P_VALUES)
def test_holm_rejects_as_its_definition_does(p_values):
    """Step down from the smallest; the first that fails ends it."""
    family = [Difference(1.0, 1.0, None, p) for p in p_values]
    found = [each.adjusted for each in adjust(family)]
    for level in (0.01, 0.05, 0.2):
        rejected = set()
        for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
            if (len(p_values) - rank) * p_values[place] > level:
                break
            rejected.add(place)
        assert {place for place, p in enumerate(found) if p <= level} == rejected


@given(P_VALUES)
def test_a_correction_never_helps_and_keeps_the_order(p_values):
    found = [each.adjusted for each in adjust([Difference(1.0, 1.0, None, p) for p in p_values])]
    assert all(p <= own <= 1 for p, own in zip(p_values, found, strict=True))
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert [found[place] for place in order] == sorted(found)


def test_what_has_no_p_value_is_not_of_the_family():
    none, one = Difference(1.0, 0.0), Difference(1.0, 1.0, None, 0.03)
    assert adjust([none, one, None]) == [none, replace(one, adjusted=0.03), None]


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_what_is_called_detectable_is_found_in_four_of_five_runs(n):
    effect = detectable(1.5, n)
    drawn = np.random.default_rng(n).normal(effect, 1.5, size=(20_000, n))
    assert np.mean(stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05) == pytest.approx(
        0.8, abs=0.01
    )


@pytest.mark.parametrize("n", [2, 5])
def test_what_is_detectable_grows_with_the_scatter(n):
    assert detectable(3.0, n) == pytest.approx(3 * detectable(1.0, n))
    assert detectable(1.0, n + 1) < detectable(1.0, n)


def test_the_interval_of_a_mean_is_students():
    values = [1.0, 2.0, 4.5]
    low, high = stats.t.interval(0.95, 2, loc=2.5, scale=stats.sem(values))
    assert mean_of(values).mean == 2.5
    assert mean_of(values).interval == pytest.approx((low, high))
    assert mean_of([1.0]).interval is None
    assert mean_of([1.0, math.nan]).interval is None
