"""Recipes and overrides that nobody means: each is refused in words, or is one that can be run."""

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recon_search.errors import ReconSearchError
from recon_search.recipe import load_recipe, parse_recipe
from recon_search.runs.run import Run
from recon_search.stages.check import check
from tests.fuzz.cases import in_time
from tests.stages.recipes import TINY

RECIPE = parse_recipe(tomllib.loads(TINY))


def keys_of(values, before=""):
    """Yield the path of every key of a resolved recipe."""
    for key, value in values.items():
        yield before + key
        if isinstance(value, dict):
            yield from keys_of(value, f"{before}{key}.")


KEYS = [*keys_of(RECIPE.model_dump(mode="json"))]
PLACES = [key for key in KEYS if "root" not in key]
TOO_MUCH = ("data.train", "data.validation", "data.test", "data.canvas")
"""What only makes data larger: that a machine has room for them is looked at elsewhere."""

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12),
    st.sampled_from(["resnet18", "joint", "pcgrad", "count", "1.2x", "auto"]),
    st.sampled_from([0, 1, -1, 2**31, 2**62, 2**64, 10**400, 1e308, float("nan"), float("-inf")]),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
texts = st.one_of(
    values.map(lambda value: json.dumps(value)),
    st.text(max_size=30),
    st.sampled_from(
        ["[" * 10_000, "{ a = 1, a = 2 }", "1" * 5000, '"""', "1e999", "-nan", "2026-01-01"]
    ),
)
paths = st.one_of(
    st.sampled_from(KEYS),
    st.sampled_from(KEYS).map(lambda key: key[:-1]),
    st.sampled_from(KEYS).flatmap(
        lambda key: st.text(max_size=6).map(lambda more: f"{key}.{more}")
    ),
    st.text(max_size=12),
)
overrides = st.lists(st.builds("{}={}".format, paths, texts) | st.text(max_size=20), max_size=3)
patient = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def refused(call):
    """Whether a call was refused, in words, and not too many."""
    try:
        with in_time():
            call()
    except ReconSearchError as error:
        said = str(error)
    else:
        return False
    assert said.strip(), "a refusal says something"
    assert len(said) < 20_000
    return True


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY)
    return tmp_path / "tiny.toml"


@settings(patient, max_examples=300)
@given(overrides)
def test_any_override_is_taken_or_refused(tiny, given_overrides):
    refused(lambda: load_recipe(tiny, given_overrides))


@settings(patient, max_examples=150)
@given(
    st.binary(max_size=200) | st.integers(0, len(TINY)).map(lambda n: TINY[n:].encode()), st.data()
)
def test_any_file_is_a_recipe_or_refused(tmp_path, content, data):
    path = tmp_path / data.draw(st.sampled_from(["a.toml", "a.json"]))
    path.write_bytes(content)
    assert refused(lambda: load_recipe(path)) or content == TINY.encode()


@settings(patient, max_examples=120)
@given(st.sampled_from([key for key in PLACES if key not in TOO_MUCH]), scalars | values)
def test_what_is_looked_at_is_valid_or_refused(key, value):
    raw = json.loads(RECIPE.model_dump_json())
    *sections, last = key.split(".")
    at = raw
    for section in sections:
        at = at[section]
    at[last] = value
    refused(lambda: check(Run(parse_recipe(raw), Path("nowhere"))))
