"""`recon-search ls methods`, and what a recipe says of methods."""

import json

import pytest
from click.testing import CliRunner

from recon_search.cli import cli
from recon_search.errors import RecipeError
from recon_search.methods.registry import METHODS
from recon_search.recipe import load_recipe
from recon_search.runs.training import Training
from recon_search.stages.run import check
from tests.stages.recipes import TINY


def test_methods_as_json_and_as_a_table():
    done = CliRunner().invoke(cli, ["ls", "methods", "--json"])
    rows = {row["name"]: row for row in json.loads(done.output)}
    assert list(rows) == list(METHODS)
    assert rows["cagrad"]["options"] == {"c": 0.5, "norm_eps": 1e-4}
    assert rows["cagrad"]["install"] == "torchjd[cagrad]"
    table = CliRunner().invoke(cli, ["ls", "methods"]).output
    for word in ("graddrop", "features", "arXiv 2103.02631", "torchjd[nash_mtl]"):
        assert word in table


@pytest.fixture
def recipe(tmp_path):
    def make(*overrides):
        (tmp_path / "tiny.toml").write_text(TINY)
        return load_recipe(tmp_path / "tiny.toml", overrides)

    return make


def test_a_recipes_options_are_checked(recipe):
    options = "train.options={ b = 0.9 }"
    check(recipe("train.method=gradvac", "train.options={ beta = 0.9 }"))
    with pytest.raises(RecipeError, match=r"`train.options.b` is no option of 'gradvac'"):
        check(recipe("train.method=gradvac", options))
    with pytest.raises(RecipeError, match=r"`train.options.b` is no option of 'joint'"):
        check(recipe(options))


def test_options_belong_to_the_method_of_train(recipe, tmp_path):
    """Probes and the other methods of a comparison have their defaults, and are not retrained."""
    plain = recipe("train.method=gradvac")
    tuned = recipe("train.method=gradvac", "train.options={ beta = 0.9 }")

    def directory(recipe, method):
        config = recipe.train.model_copy(update={"method": method})
        training = Training("", ("left",), None, config, recipe.backbone, 0)
        return training.directory(recipe, tmp_path)

    assert directory(plain, "pcgrad") == directory(tuned, "pcgrad")
    assert directory(plain, "gradvac") != directory(tuned, "gradvac")
