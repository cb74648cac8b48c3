"""What two rankings share, by hand and by laws."""

import math

import pytest
import torch

from recon_search.conflict.agreement import measure_agreement
from recon_search.conflict.reliability import measure_reliability
from recon_search.conflict.rules import Reading
from recon_search.errors import RecipeError
from tests.conflict.test_reliability import N_LAYERS, probe

COUNTS = {"a": 9, "b": 7, "c": 4, "d": 1}


def compare(first, second, ks=(1, 2, 3), rule="projection"):
    return measure_agreement(first, second, rule, Reading(), ks)


def noisy(seed):
    generator = torch.Generator().manual_seed(seed)
    slope = torch.linspace(-0.8, 0.3, N_LAYERS)
    return probe(
        (slope + 0.3 * torch.randn(40, N_LAYERS, generator=generator)).clamp(-1, 1).double()
    )


def test_two_orders_by_hand():
    """Of a b c d and b d a c three of six pairs stand alike, and three the other way round."""
    found = compare(COUNTS, {"d": 5, "c": 2, "b": 8, "a": 3})
    assert [top.shared for top in found.tops] == [(), ("b",), ("a", "b")]
    assert [top.share for top in found.tops] == [0, 0.5, pytest.approx(2 / 3)]
    assert [top.chance for top in found.tops] == [0.25, 0.5, 0.75]
    assert found.tau == pytest.approx((3 - 3) / 6)
    assert found.tau_halves == (None, None)
    assert {top.stability for top in found.tops} == {(None, None)}


def test_a_ranking_agrees_with_itself_and_not_with_its_reverse():
    same = compare(COUNTS, COUNTS)
    assert (same.tau, {top.share for top in same.tops}) == (1, {1})
    reverse = {layer: -count for layer, count in COUNTS.items()}
    assert compare(COUNTS, reverse).tau == -1


def test_it_does_not_matter_which_comes_first():
    one, other = noisy(1), noisy(2)
    there, back = compare(one, other), compare(other, one)
    assert there.tau == pytest.approx(back.tau)
    assert 0 < there.tau < 1
    for top, mirrored in zip(there.tops, back.tops, strict=True):
        assert set(top.shared) == set(mirrored.shared)
        assert top.stability == mirrored.stability[::-1]


def test_beside_it_stands_what_each_shares_with_itself():
    one, counts = noisy(1), {f"layer{index}": -index for index in range(N_LAYERS)}
    found = compare(one, counts, ks=(5,))
    alone = measure_reliability(one, "projection", Reading(), k=5)
    assert found.tops[0].stability == (alone.stability, None)
    assert found.tau_halves == (alone.tau, None)
    assert found.tau > 0.5, "both fall from the first layer to the last"


def test_sizes_are_taken_once_and_below_the_number_of_layers():
    assert [top.k for top in compare(COUNTS, COUNTS, ks=(3, 1, 3, 4, 9, 0)).tops] == [1, 3]
    lone = compare({"a": 1}, {"a": 2})
    assert (lone.n_layers, lone.tops) == (1, ())
    assert math.isnan(lone.tau)


def test_other_layers_are_refused():
    with pytest.raises(RecipeError, match=r"same layers, got 4 and 3, of which 1 .* as 'd'"):
        compare(COUNTS, {"a": 1, "b": 2, "c": 3})
