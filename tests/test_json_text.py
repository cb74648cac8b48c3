"""JSON within limits: what Python writes is read back, and what could do harm is refused."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon_search.json_text import DEEPEST, parse

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)  # fmt: skip


@given(plain)
def test_what_is_written_is_read(value):
    assert parse(json.dumps(value), finite=False) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "more than 100 deep"),
        ('{"a":' * 100_000, "more than 100 deep"),
        ("[" * (DEEPEST + 2) + "]" * (DEEPEST + 2), "more than 100 deep"),
        ("9" * 5000, "has 5000 digits"),
        ('{"a": {"b": 1, "b": 2}}', "'b' twice in one object"),
        ("[NaN]", "NaN is not finite"),
        ("[-Infinity]", "-Infinity is not finite"),
        ("1e999", "1e999 is not finite"),
        ('"\\ud800"', "surrogates not allowed"),
        (b"\xff\xfe", "invalid start byte"),
        ("{", "line 1"),
    ],
    ids=lambda each: str(each)[:20],
)
def test_what_breaks_a_limit_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse(text)


def test_numbers_that_are_none_are_read_where_they_are_meant():
    first, second = parse("[NaN, -Infinity]", finite=False)
    assert math.isnan(first)
    assert second == -math.inf


def test_as_deep_as_the_limit_is_read():
    assert parse("[" * DEEPEST + "]" * DEEPEST)
