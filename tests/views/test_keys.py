"""`recon-search ls keys`: the recipe's own schema, and a document that is as it says."""

import json
import tomllib
from pathlib import Path

import pytest

from recon_search.recipe import shipped_recipes
from recon_search.recipe.data import READ_BY
from recon_search.views.keys import key_document, key_rows

ROOT = Path(__file__).parents[2]
ROWS = {row["key"]: row for row in key_rows()}


@pytest.mark.parametrize("key", ROWS)
def test_a_key_says_in_a_sentence_what_it_is(key):
    row = ROWS[key]
    assert row["what"].endswith("."), key
    assert row["what"][0].isupper() or row["what"].startswith("`")
    assert row["type"], key
    assert "any value" not in row["type"]


def test_keys_have_the_types_and_defaults_of_the_schema():
    assert ROWS["split.init"]["type"] == '"copy", "fresh"'
    assert ROWS["split.init"]["default"] == "copy"
    assert ROWS["split.threshold"]["type"] == "float > -1, <= 0"
    assert ROWS["train.lr"]["is_required"]
    assert not ROWS["train.lr"]["default"]
    assert ROWS["train.epochs"]["type"] == "integer > 0"  # a bound that keeps mistakes out is none
    assert ROWS["probe.window"]["default"] == [0.6, 1.0]
    assert ROWS["tasks.NAME.head"]["type"] == "table, as [head]"
    assert ROWS["search.space"]["type"].startswith("table of table or list of ")
    assert {"data.augment.flip", "compare.splits.NAME.file", "search.space.NAME.low"} <= set(ROWS)


@pytest.mark.parametrize("path", shipped_recipes().values(), ids=lambda path: path.stem)
def test_every_key_that_a_recipe_sets_is_listed(path):
    for section, values in tomllib.loads(path.read_text(encoding="utf-8")).items():
        assert section in ROWS
        if section not in ("tasks", "necks") and isinstance(values, dict):
            assert {f"{section}.{key}" for key in values} <= set(ROWS)


def test_every_key_that_readers_read_is_listed():
    assert {f"data.{key}" for key in READ_BY} <= set(ROWS)


def test_the_document_is_that_of_the_schema():
    written = (ROOT / "recipes/KEYS.md").read_text(encoding="utf-8")
    assert written == key_document(), "recon-search ls keys --markdown > recipes/KEYS.md"
    for row in ROWS.values():
        assert row["what"] in written


def test_a_section_or_a_key_alone_is_listed(invoke):
    rows = json.loads(invoke("ls", "keys", "split", "--json").output)
    assert rows[0]["key"] == "split"
    assert "split.rule" in [row["key"] for row in rows]
    assert all(row["key"].partition(".")[0] == "split" for row in rows)
    (one,) = json.loads(invoke("ls", "keys", "probe.window", "--json").output)
    assert one["default"] == [0.6, 1.0]
    table = invoke("ls", "keys", "data.augment").output
    assert "data.augment.zoom" in table
    assert "data.name" not in table
    assert invoke("ls", "keys", "--markdown").output == key_document()


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("splt", "'split'"),
        ("[serch]", "'search'"),
        ("confidence", "'probe.conf"),
        ("data.agument", "'data.augment'"),
    ],
)
def test_a_section_that_is_none_is_refused_with_near_names(invoke, name, near):
    code, output, error = invoke("ls", "keys", name)
    assert (code, output) == (2, "")
    assert f"got '{name}'. Did you mean {near}" in error
    assert error.count("\n") == 1


def test_a_document_is_of_all_keys(invoke):
    code, _, error = invoke("ls", "keys", "split", "--markdown")
    assert code == 2
    assert "Leave SECTION and --json out." in error
