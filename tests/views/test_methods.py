"""`recon-search ls methods`, and what a recipe says of methods."""

import json

import pytest
from click.testing import CliRunner

from recon_search.cli import cli
from recon_search.errors import RecipeError
from recon_search.methods.registry import METHODS
from recon_search.recipe import load_recipe
from recon_search.runs.run import Run
from recon_search.runs.training import Training
from recon_search.stages.check import check
from tests.stages.recipes import TINY


def test_methods_as_json_and_as_a_table():
    done = CliRunner().invoke(cli, ["ls", "methods", "--json"])
    rows = {row["name"]: row for row in json.loads(done.output)}
    assert list(rows) == list(METHODS)
    assert rows["cagrad"]["options"] == {"c": 0.5, "norm_eps": 1e-4, "tasks_per_step": 0}
    assert rows["cagrad"]["install"] == "torchjd[cagrad]"
    table = CliRunner().invoke(cli, ["ls", "methods"]).output
    for word in ("graddrop", "features", "arXiv 2103.02631", "torchjd[nash_mtl]"):
        assert word in table


@pytest.fixture
def run(tmp_path):
    def make(*overrides):
        (tmp_path / "tiny.toml").write_text(TINY)
        return Run(load_recipe(tmp_path / "tiny.toml", overrides), tmp_path)

    return make


def test_a_recipes_options_are_checked(run):
    options = "train.options={ b = 0.9 }"
    check(run("train.method=gradvac", "train.options={ beta = 0.9 }"))
    with pytest.raises(RecipeError, match=r"`train.options.b` is no option of 'gradvac'"):
        check(run("train.method=gradvac", options))
    with pytest.raises(RecipeError, match=r"`train.options.b` is no option of 'joint'"):
        check(run(options))


def test_options_belong_to_the_method_of_train(run):
    """Probes and the other methods of a comparison have their defaults, and are not retrained."""
    plain = run("train.method=gradvac")
    tuned = run("train.method=gradvac", "train.options={ beta = 0.9 }")

    def identity(run, method):
        config = run.recipe.train.model_copy(update={"method": method})
        return Training(("left",), None, config, run.recipe.backbone, 0).identity(run)

    assert identity(plain, "pcgrad") == identity(tuned, "pcgrad")
    assert identity(plain, "gradvac") != identity(tuned, "gradvac")
