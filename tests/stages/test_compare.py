"""What a comparison trains, planned without training."""

import tomllib
from pathlib import Path

import pytest

from recon_search.errors import RecipeError
from recon_search.recipe import parse_recipe
from recon_search.runs.run import Run
from recon_search.stages.compare import plan
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
    run = Run(recipe, Path("out"))
    lines = {line.name: line for line in plan(run, choose_split(recipe, scores), scores)}
    chosen = {name: line for name, line in lines.items() if line.role == "rule"}
    assert len(chosen) == 3 * 2
    for name, line in chosen.items():
        rule, k = name.removeprefix("rule ").removesuffix(" layers").split(", ")
        first, second = line.trainings
        assert (first.seed, second.seed) == (0, 1)
        assert len(first.split.layers) == int(k)
        assert first.split.chosen["rule"] == rule
        same = first.split == second.split
        assert same is (rule != "random"), "a random order is drawn anew for every seed"

    split = lines["joint, split"].trainings[0]
    equal = chosen["rule count, 3 layers"].trainings[0]
    assert equal.directory(run) == split.directory(run), "trained once"


def test_roles_are_fields_and_the_baselines_come_first():
    recipe = recipe_with(seeds=2, methods=["joint", "pcgrad"], controls=["random", "norm-only"])
    scores = noisy_scores(recipe)
    lines = plan(Run(recipe, Path("out")), choose_split(recipe, scores), scores)
    roles = ["single"] * 2 + ["joint", "split"] * 2 + ["control"] * 2
    assert [line.role for line in lines] == roles
    assert [line.trainings[0].tasks for line in lines[:2]] == [(task,) for task in TASKS]
    assert {line.trainings[0].train.method for line in lines[6:]} == {"joint"}


def test_rules_and_sizes_need_each_other():
    with pytest.raises(RecipeError, match=r"compare.ks"):
        recipe_with(rules=["count"])
