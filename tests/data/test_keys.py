"""Keys of `[data]` that readers read: of use where they stand, and counted where they matter."""

import pytest

from recon_search.errors import RecipeError
from recon_search.identity import of_data
from recon_search.recipe import DataConfig, parse_recipe

REST = {
    "backbone": {"name": "resnet18"},
    "train": {"epochs": 1, "batch_size": 4, "lr": 0.1},
    "probe": {"epochs": 1},
}


def parse(**data):
    return parse_recipe({"data": data, **REST}).data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "multi-digits", "file": "x.csv"}, r"`data\.file` is for table and parquet"),
        ({"name": "image-folder", "split": "part"}, r"`data\.split` is for table and parquet data"),
        ({"name": "image-folder", "group": "site"}, r"`data\.group` is for .*'image-folder'"),
        ({"name": "image-folder", "missing": ["NA"]}, r"`data\.missing` is for"),
        ({"name": "factory", "factory": "a:b", "ratio": [0.6, 0.2, 0.2]}, r"`data\.ratio` is for"),
        ({"name": "parquet", "delimiter": ";"}, r"`data\.delimiter` is for table data"),
        ({"name": "table", "ratio": [0.7, 0.2, 0.2]}, r"must add up to 1, .*add up to 1\.1"),
        ({"name": "table", "ratio": [0.8, 0.2, 0.0]}, r"`data\.ratio\.2`: .*greater than 0"),
        ({"name": "table", "ratio": [0.8, 0.2]}, r"`data\.ratio"),
        ({"name": "table", "delimiter": ", "}, r"`data\.delimiter`: .*at most 1 character"),
        ({"name": "table", "filee": "x.csv"}, r"`data\.filee` is no key.*Did you mean 'file'"),
    ],
)
def test_keys_that_are_of_no_use_are_refused(data, message):
    with pytest.raises(RecipeError, match=message):
        parse(**data)


@pytest.mark.parametrize("ratio", [[0.7, 0.15, 0.15], [0.333, 0.333, 0.334], [0.6, 0.3, 0.1]])
def test_shares_that_add_up_are_taken(ratio):
    assert parse(name="table", ratio=ratio).ratio == tuple(ratio)


def test_several_columns_of_one_task_are_a_list():
    raw = {"tasks": {"damage": {"kind": "labels", "target": ["moss", "rot"]}}}
    recipe = parse_recipe({"data": {"name": "table"}, **raw, **REST})
    assert recipe.tasks["damage"].target == ["moss", "rot"]
    raw["tasks"]["damage"]["target"] = []
    with pytest.raises(RecipeError, match=r"`tasks\.damage\.target"):
        parse_recipe({"data": {"name": "table"}, **raw, **REST})


def test_where_a_table_lies_does_not_count_but_how_it_is_read_does():
    base = {"name": "table", "root": "a", "file": "labels.csv", "image": "file"}
    known = of_data(DataConfig(**base), "print")
    assert of_data(DataConfig(**base | {"root": "b", "file": "/c/labels.csv"}), "print") == known
    assert of_data(DataConfig(**base), "other print") != known
    for change in (
        {"seed": 1},
        {"ratio": (0.6, 0.2, 0.2)},
        {"split": "part"},
        {"group": "site"},
        {"missing": ["NA"]},
        {"image": "path"},
        {"channels": 1},
    ):
        assert of_data(DataConfig(**base | change), "print") != known
