"""Laws of cutting samples into parts."""

import itertools
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_search.data.parts import complete, cut, read_part
from recon_search.data.source import PARTS
from recon_search.errors import DataError

RATIOS = st.sampled_from(
    [(0.7, 0.15, 0.15), (0.6, 0.2, 0.2), (0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.34, 0.33, 0.33)]
)
SEEDS = st.integers(0, 1000)


def keys_of(n):
    return [f"photos/{index}.jpg" for index in range(n)]


def counts(parts):
    return [list(parts).count(part) for part in PARTS]


@st.composite
def labelled(draw):
    """Samples with the classes of one to three tasks, None for those without a label."""
    n = draw(st.integers(0, 80))
    classes = st.sampled_from([None, "a", "b", "c", "d"])
    columns = st.lists(classes, min_size=n, max_size=n)
    return keys_of(n), draw(st.lists(columns, min_size=1, max_size=3))


@given(labelled(), RATIOS, SEEDS)
def test_every_stratum_has_its_share_within_one_sample_and_sizes_are_exact(samples, ratio, seed):
    keys, strata = samples
    parts = cut(keys, ratio, seed, strata=strata)
    assert len(parts) == len(keys)
    assert set(parts) <= set(PARTS)
    exact = [Fraction(str(share)) for share in ratio]
    for size, share in zip(counts(parts), exact, strict=True):
        assert abs(size - len(keys) * share) < 1
    strata_of = list(zip(*strata, strict=True))
    for stratum in set(strata_of):
        own = [part for part, found in zip(parts, strata_of, strict=True) if found == stratum]
        for size, share in zip(counts(own), exact, strict=True):
            assert abs(size - len(own) * share) <= 1


@given(labelled(), RATIOS, SEEDS, st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_count(samples, ratio, seed, random):
    keys, strata = samples
    order = list(range(len(keys)))
    random.shuffle(order)
    parts = cut(keys, ratio, seed, strata=strata)
    shuffled = cut(
        [keys[row] for row in order],
        ratio,
        seed,
        strata=[[column[row] for row in order] for column in strata],
    )
    assert shuffled == [parts[row] for row in order]


@given(st.integers(30, 80), SEEDS)
def test_the_same_seed_cuts_the_same_and_another_does_not(n, seed):
    keys, ratio = keys_of(n), (0.5, 0.25, 0.25)
    assert cut(keys, ratio, seed) == cut(keys, ratio, seed)
    assert cut(keys, ratio, seed) != cut(keys, ratio, seed + 1)


def test_each_task_is_spread_evenly_where_few_samples_are_alike_in_all():
    """Twenty tasks' classes together are different for every sample."""
    n = 200
    strata = [[(index * (task + 3)) % 5 for index in range(n)] for task in range(3)]
    strata.append(list(range(n)))
    parts = cut(keys_of(n), (0.6, 0.2, 0.2), 0, strata=strata)
    assert counts(parts) == [120, 40, 40]
    for column in strata[:3]:
        for label in range(5):
            own = [part for part, found in zip(parts, column, strict=True) if found == label]
            assert abs(own.count("validation") - len(own) / 5) <= 3
            assert abs(own.count("test") - len(own) / 5) <= 3


def test_any_sample_may_come_into_any_part():
    """Also samples whose class nobody else has."""
    keys = keys_of(10)
    cuts = [cut(keys, (0.6, 0.2, 0.2), seed, strata=[list(keys)]) for seed in range(60)]
    assert all({each[row] for each in cuts} == set(PARTS) for row in range(10))


@st.composite
def grouped(draw):
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=30))
    groups = [f"g{index}" for index, size in enumerate(sizes) for _ in range(size)]
    return sizes, draw(st.permutations(groups))


@given(grouped(), RATIOS, SEEDS)
@settings(max_examples=60, deadline=None)
def test_groups_stay_whole(samples, ratio, seed):
    sizes, groups = samples
    parts = cut(keys_of(len(groups)), ratio, seed, groups=groups)
    found = {}
    for group, part in zip(groups, parts, strict=True):
        assert found.setdefault(group, part) == part
    assert sum(counts(parts)) == sum(sizes)
    if len(sizes) >= 3:
        assert min(counts(parts)) > 0


def distance(sizes, ratio):
    """How far the sizes of parts are from a ratio; parts without a sample come last."""
    wanted = [sum(sizes) * Fraction(str(share)) for share in ratio]
    return sizes.count(0), sum(abs(size - aim) for size, aim in zip(sizes, wanted, strict=True))


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), RATIOS, SEEDS)
@settings(max_examples=40, deadline=None)
def test_with_few_groups_no_way_to_deal_them_out_comes_nearer_to_the_ratio(sizes, ratio, seed):
    groups = [index for index, size in enumerate(sizes) for _ in range(size)]
    found = counts(cut(keys_of(len(groups)), ratio, seed, groups=groups))
    best = min(
        distance(
            [sum(s for s, p in zip(sizes, way, strict=True) if p == k) for k in range(3)], ratio
        )
        for way in itertools.product(range(3), repeat=len(sizes))
    )
    assert distance(found, ratio) == best


@given(st.lists(st.integers(1, 9), min_size=30, max_size=60), SEEDS)
@settings(max_examples=20, deadline=None)
def test_many_groups_come_within_one_sample_of_the_ratio(sizes, seed):
    groups = [index for index, size in enumerate(sizes) for _ in range(size)]
    found = counts(cut(keys_of(len(groups)), (0.7, 0.15, 0.15), seed, groups=groups))
    for size, share in zip(found, (0.7, 0.15, 0.15), strict=True):
        assert abs(size - share * len(groups)) <= 1


def test_groups_are_dealt_out_by_seed_and_not_by_row():
    groups = [index // 3 for index in range(60)]
    keys = keys_of(60)
    first = cut(keys, (0.6, 0.2, 0.2), 0, groups=groups)
    assert cut(keys[::-1], (0.6, 0.2, 0.2), 0, groups=groups[::-1]) == first[::-1]
    assert cut(keys, (0.6, 0.2, 0.2), 1, groups=groups) != first


@pytest.mark.parametrize(
    ("given_parts", "ratio", "expected"),
    [
        ({"train": 80, "test": 20}, None, (65, 14, 20)),
        ({"train": 80, "test": 20}, (0.75, 0.25 / 3, 0.5 / 3), (72, 8, 20)),
        ({"train": 80, "validation": 20}, (0.6, 0.2, 0.2), (60, 20, 20)),
        ({"train": 100}, (0.6, 0.2, 0.2), (60, 20, 20)),
        ({"train": 60, "validation": 20, "test": 20}, None, (60, 20, 20)),
    ],
)
def test_parts_that_data_lack_are_cut_off_the_training_part(given_parts, ratio, expected):
    listed = [part for part, size in given_parts.items() for _ in range(size)]
    parts = complete(listed, keys_of(len(listed)), ratio, 0)
    assert all(abs(a - b) <= 1 for a, b in zip(counts(parts), expected, strict=True))
    for before, after in zip(listed, parts, strict=True):
        assert before in ("train", after)
        assert after == before or after not in given_parts


@pytest.mark.parametrize(
    ("listed", "ratio", "message"),
    [
        (["train"] * 5, None, r"must have a test part, found none.*data\.ratio"),
        (["train", "validation"] * 5, None, "must have a test part"),
        (["test"] * 5, None, "must have a train part"),
        (["train", "validation", "test"], (0.6, 0.2, 0.2), "would cut nothing"),
    ],
)
def test_what_cannot_be_completed_is_refused(listed, ratio, message):
    with pytest.raises(DataError, match=message):
        complete(listed, keys_of(len(listed)), ratio, 0)


@given(labelled(), SEEDS)
def test_a_missing_validation_part_is_stratified_within_one_sample(samples, seed):
    keys, (column, *_) = samples
    listed = ["test" if index % 4 == 3 else "train" for index in range(len(keys))]
    if "train" not in listed or "test" not in listed:
        return
    parts = complete(listed, keys, None, seed, strata=[column])
    taken = Counter(
        label for label, part in zip(column, parts, strict=True) if part == "validation"
    )
    had = Counter(label for label, part in zip(column, listed, strict=True) if part == "train")
    share = Fraction(15, 85)
    assert all(abs(taken[label] - number * share) <= 1 for label, number in had.items())


@pytest.mark.parametrize(
    ("text", "part"),
    [("train", "train"), (" Val ", "validation"), ("VALID", "validation"), ("test", "test")],
)
def test_parts_are_read_in_the_usual_spellings(text, part):
    assert read_part(text) == part


@pytest.mark.parametrize("text", ["", "tset", "train,test", "holdout"])
def test_other_parts_are_refused_with_what_is_accepted(text):
    with pytest.raises(DataError, match=r"must be one of train, .*valid, val.*, test.*found"):
        read_part(text)
