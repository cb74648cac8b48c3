"""What a comparison trains, planned without training."""

import tomllib
from pathlib import Path

import pytest

from recon_search.errors import RecipeError
from recon_search.recipe import parse_recipe
from recon_search.stages.compare import plan_trainings
from recon_search.stages.split import choose_split
from tests.stages.recipes import TINY
from tests.stages.scores import TASKS, noisy_scores


def recipe_with(**compare):
    return parse_recipe(tomllib.loads(TINY) | {"compare": compare})


def test_rules_are_trained_at_every_size_and_seed():
    recipe = recipe_with(
        seeds=2, methods=["joint"], controls=[], rules=["count", "projection", "random"], ks=[3, 5]
    )
    scores = noisy_scores(recipe)
    trainings = plan_trainings(recipe, choose_split(recipe, scores), scores, TASKS, 1)
    chosen = {
        (training.label, training.seed): training
        for training in trainings
        if training.label.startswith("rule")
    }
    assert len(chosen) == 3 * 2 * 2
    for (label, seed), training in chosen.items():
        rule, k = label.removeprefix("rule ").removesuffix(" layers").split(", ")
        assert len(training.split.layers) == int(k)
        assert training.split.chosen["rule"] == rule
        same = chosen[label, 1 - seed].split == training.split
        assert same is (rule != "random"), "a random order is drawn anew for every seed"

    split = next(training for training in trainings if training.label == "joint, split")
    equal = chosen["rule count, 3 layers", split.seed]
    out = Path("out")
    assert equal.directory(recipe, out) == split.directory(recipe, out), "trained once"


def test_rules_and_sizes_need_each_other():
    with pytest.raises(RecipeError, match=r"compare.ks"):
        recipe_with(rules=["count"])
