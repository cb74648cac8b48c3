"""Data by name: factories, options of tasks that data brings along, keys that are of no use."""

import pytest
import torch

from recon_search.data.registry import find_source
from recon_search.errors import DataError, RecipeError
from recon_search.recipe import parse_recipe
from tests.data.samples import of_tensors

HOME = "tests.data.factories"


def recipe_of(data, **tasks):
    raw = {
        "data": data,
        "tasks": tasks,
        "backbone": {"name": "resnet18"},
        "train": {"epochs": 1, "batch_size": 16, "lr": 0.1},
        "probe": {"epochs": 1},
    }
    return parse_recipe(raw)


def find(data, given=None, **tasks):
    recipe = recipe_of(data, **tasks)
    return find_source(recipe.data, recipe.tasks, given=given)


def factory(name, **settings):
    return {"name": "factory", "factory": f"{HOME}:{name}", **settings}


def test_a_factory_is_called_with_its_arguments():
    source = find(factory("build", args={"n": 60, "shape": [1, 5, 4]}))
    assert source.schema.shape == (1, 5, 4)
    assert source.schema.names == ("a", "b")
    assert source.open(torch.device("cpu")).lengths("train") == (60,)


def test_a_factory_gets_root_and_seed_where_it_takes_them():
    found = find(factory("where", root="photos", seed=4, args={"extra": 7}))
    assert found.schema.fingerprint == "photos 4 7"
    find(factory("build", root="photos", seed=4))
    with pytest.raises(RecipeError, match=r"`data.args.seed` is given as `data.seed`, too"):
        find(factory("where", root="photos", args={"seed": 3}))


def test_a_factory_without_a_fingerprint_gets_that_of_its_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for name, text in (("one", ""), ("same", ""), ("other", "# changed\n")):
        code = (
            f"from {HOME} import build as make\n\n\ndef build(**args):\n    return make(**args)\n"
        )
        (tmp_path / f"{name}.py").write_text(code + text)
        data = {"name": "factory", "factory": f"{name}:build"}
        found.append(find(data).schema.fingerprint)
        assert find({**data, "args": {"fingerprint": "v2"}}).schema.fingerprint == "v2"
    assert found[0] == found[1] != found[2]
    assert all(found)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (factory("absent"), RecipeError, f"{HOME} has no 'absent'"),
        (factory("bild"), RecipeError, "Did you mean 'build'"),
        (factory("build", args={"m": 3}), RecipeError, r"cannot be called with \(m=3\)"),
        (factory("where"), RecipeError, r"cannot be called with \(seed=0\): missing .*'root'"),
        (factory("failing"), RecipeError, "must not fail .* KeyError"),
        (factory("nothing"), DataError, r"must return a recon_search.TaskData, got list"),
        (factory("build", canvas=12), RecipeError, "`data.canvas` is of no use to 'factory' data"),
        (factory("build", train=12), RecipeError, "`data.train` is of no use to 'factory' data"),
        (
            {"name": "factory"},
            RecipeError,
            '`data.factory` need each other, got "factory" and None',
        ),
        (factory("build") | {"name": "multi-digits"}, RecipeError, "need each other"),
        (
            {"name": "factory", "factory": "build"},
            RecipeError,
            "`data.factory`: .*package.module",
        ),
        (
            {"name": "multi-digits", "args": {"n": 3}},
            RecipeError,
            "`data.args` are for a `data",
        ),
        ({"name": "factor"}, DataError, "Did you mean 'factory'"),
        ({"name": "given"}, DataError, "is for data from Python .* got 'given' without such data"),
        ({"name": "multi-digits", "image_size": [8, 8]}, RecipeError, "`data.image_size` is of no"),
        ({"name": "multi-digits", "statistics": "timm"}, RecipeError, "`data.statistics` is of no"),
        (
            {"name": "multi-digits", "augment": {"flip": 0.5}},
            RecipeError,
            "`data.augment` is of",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(data, error, message):
    with pytest.raises(error, match=message) as caught:
        _ = find(data).schema
    assert "\n" not in str(caught.value)


def test_given_data_is_named_so():
    assert find({"name": "given"}, given=of_tensors()).schema.names == ("a", "b")
    with pytest.raises(DataError, match="got 'multi-digits' with such data"):
        find({"name": "multi-digits"}, given=of_tensors())


SOURCES = {
    "built-in": ({"name": "multi-digits", "train": 20, "canvas": 12}, ("left", "right")),
    "factory": (factory("build"), ("a", "b")),
}


@pytest.mark.parametrize("name", SOURCES)
def test_tables_change_options_of_tasks_that_data_brings_along(name):
    data, (first, second) = SOURCES[name]
    plain = find(data).schema.tasks
    changed = find(data, **{second: {"weight": 2.5, "metrics": ["error", "accuracy"]}}).schema.tasks
    assert changed[0] == plain[0]
    assert changed[1].weight == 2.5
    assert changed[1].metrics == {"error": -1, "accuracy": 1}
    assert {**changed[1].spec()} == {
        **plain[1].spec(),
        "weight": 2.5,
        "metrics": ["error", "accuracy"],
    }
    assert find(data, **{first: {"head": {"kind": "mlp"}}}).schema.tasks == plain


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"kind": "classes"}, "{0}.kind` is known for data that brings its tasks with it, got 'cl"),
        ({"target": "column"}, "{0}.target` is known .* got 'column'. Remove it"),
        ({"wieght": 2.0}, "`tasks.{0}`: .*'wieght'. Did you mean 'weight'"),
        ({"weight": -1.0}, "`weight` must be a finite number above 0, got -1.0"),
    ],
)
def test_tables_must_fit_the_tasks(name, table, message):
    data, (first, _) = SOURCES[name]
    with pytest.raises((RecipeError, DataError), match=message.format(first)):
        find(data, **{first: table})


@pytest.mark.parametrize("name", SOURCES)
def test_tables_of_unknown_tasks_are_refused(name):
    data, (first, second) = SOURCES[name]
    message = f"`tasks.{first}s` must be a task of the data, which has {first}, {second}. Did you"
    with pytest.raises(RecipeError, match=message):
        find(data, **{f"{first}s": {"weight": 2.0}})
