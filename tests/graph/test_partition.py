from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon_search.graph.partition import (
    blocks,
    canonical,
    from_groups,
    is_refinement,
    refine,
    to_groups,
    whole,
)

PARTITIONS = st.lists(st.integers(0, 3), min_size=4, max_size=4).map(canonical)


def test_labels_are_numbered_in_order_of_appearance() -> None:
    assert canonical("zaz") == (0, 1, 0)
    assert canonical("") == ()


def test_groups_and_partitions_name_the_same_thing() -> None:
    tasks = ("a", "b", "c")
    assert from_groups([["c", "a"], ["b"]], tasks) == (0, 1, 0)
    assert to_groups((0, 1, 0), tasks) == (("a", "c"), ("b",))


def test_blocks_of_some_members() -> None:
    assert blocks((0, 1, 0, 1)) == [(0, 2), (1, 3)]
    assert blocks((0, 1, 0, 1), [3, 1]) == [(3, 1)]


@given(PARTITIONS, PARTITIONS, PARTITIONS)
def test_refinement_is_a_meet(p: tuple[int, ...], q: tuple[int, ...], r: tuple[int, ...]) -> None:
    fine = refine(p, q)
    assert fine == refine(q, p) == refine(p, q, p)
    assert refine(fine, r) == refine(p, refine(q, r))
    assert refine(p, whole(4)) == p
    assert is_refinement(fine, p)
    assert is_refinement(fine, q)
    if is_refinement(r, p) and is_refinement(r, q):
        assert is_refinement(r, fine)


def test_partitions_of_different_lengths_do_not_mix() -> None:
    with pytest.raises(ValueError, match="shorter"):
        refine((0, 0, 0), (0, 1))
