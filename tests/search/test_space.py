"""What may be drawn, and what is tried first."""

import tomllib
from pathlib import Path

import optuna
import pytest

from recon_search.errors import RecipeError
from recon_search.recipe import Range, parse_recipe
from recon_search.runs.run import Run
from recon_search.search.space import draw, find_knee, first_trials, make_space, with_values
from recon_search.stages.check import check
from tests.stages.recipes import TINY
from tests.stages.scores import noisy_scores


def recipe_with(**search):
    return parse_recipe(tomllib.loads(TINY) | {"search": search})


@pytest.fixture(scope="module")
def scores():
    return noisy_scores(recipe_with())


def test_every_drawn_value_gives_a_valid_recipe_and_only_what_is_read_is_drawn(scores):
    recipe = recipe_with(
        space={
            "train.lr": {"low": 0.01, "high": 0.1, "log": True},
            "train.method": ["joint", "pcgrad"],
        }
    )
    space = make_space(recipe, scores)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(60):
        values = draw(study.ask(), space)
        changed = with_values(recipe, values)
        assert changed.split.rule == values["split.rule"]
        assert changed.train.method == values["train.method"]
        assert 0.01 <= changed.train.lr <= 0.1
        assert ("split.threshold" in values) == (values["split.rule"] == "count")
        assert "split.group_share" not in values, "two tasks: nothing to group"
        seen.add(values.get("split.threshold"))
    assert seen <= {None, -0.3, -0.25, -0.2, -0.15, -0.1, -0.05, 0.0}, "exact multiples"


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"probe.epochs": [1, 2]}, r"takes keys of split and train, got 'probe.epochs'"),
        ({"split.max_params": ["1.2x"]}, r"search.max_params"),
        ({"train.rl": [0.1]}, r"`train.rl` is no key of a recipe. Did you mean 'lr'"),
        ({"train.lr": [0.1, -1.0]}, r"`train.lr`.* got -1.0"),
        ({"train": [1]}, r"takes keys of split and train, got 'train'"),
        ({"train.lr.low": [1]}, r"takes keys of split and train, got 'train.lr.low'"),
        ({"train.options.": [1]}, r"takes keys of split and train, got 'train.options.'"),
    ],
)
def test_a_space_that_cannot_be_is_refused(scores, space, message):
    with pytest.raises(RecipeError, match=message):
        make_space(recipe_with(space=space), scores)


def test_options_are_those_of_the_recipes_method():
    raw = tomllib.loads(TINY)
    raw["train"] |= {"method": "cagrad", "options": {"c": 0.5}}
    recipe = parse_recipe(raw)
    assert with_values(recipe, {"train.options.c": 0.7}).train.options == {"c": 0.7}
    other = {"train.options.c": 0.7, "train.method": "joint"}
    assert with_values(recipe, other).train.options == {}


def test_weights_of_losses_and_copies_may_be_searched():
    """A task's name may have dots."""
    recipe = parse_recipe(tomllib.loads(TINY))
    found = with_values(recipe, {"train.weights.left": 2.0, "split.copy": "low-rank"})
    assert found.train.weights == {"left": 2.0}
    assert found.split.copies.kind == "low-rank"
    assert with_values(recipe, {"train.weights.a.b": 2.0}).train.weights == {"a.b": 2.0}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"split.rule": ["projection", "bogus"]}, "ranking rule must be one of"),
        ({"train.method": ["joint", "bogus"]}, "bogus"),
        ({"train.optimizer": ["sgd", "bogus"]}, "`train.optimizer` must be"),
        ({"split.k": {"low": 0, "high": 80}}, r"`split.k` must be between 0 and 43"),
        ({"split.threshold": {"low": -0.3, "high": 0.0}}, "step by multiples of 0.01"),
        ({"split.threshold": {"low": -0.3, "high": 0.0, "step": 0.015}}, "multiples of 0.01"),
    ],
)
def test_names_and_sizes_that_are_not_there_are_found_before_the_probe(space, message):
    with pytest.raises(RecipeError, match=message):
        check(Run(recipe_with(space=space), Path("out")))


def test_ranges_are_checked():
    with pytest.raises(RecipeError, match=r"needs an integer step, got 0\.5"):
        recipe_with(space={"split.k": {"low": 0, "high": 4, "step": 0.5}})
    with pytest.raises(RecipeError, match="low must not be above high"):
        recipe_with(space={"train.lr": {"low": 1.0, "high": 0.1}})
    with pytest.raises(RecipeError, match="finite number"):
        parse_recipe(
            tomllib.loads(f"{TINY}\n[search.space]\n'train.lr' = {{low = 0.1, high = inf}}")
        )
    assert Range(low=0, high=41, step=4).last == 40
    assert Range(low=0.0, high=1.0, step=0.1).last == pytest.approx(1.0)
    assert Range(low=0.1, high=1).last == 1
    assert Range(low=1, high=3).is_integer
    assert not Range(low=1, high=3.5).is_integer


def test_first_trials_lie_in_the_space_and_hold_no_split_the_norms_and_the_paper(scores):
    recipe = recipe_with()
    space = make_space(recipe, scores)
    guesses = first_trials(recipe, scores, space)
    assert {"split.k": 0} in guesses
    norms = next(guess for guess in guesses if guess.get("split.rule") == "norm-only")
    assert norms["split.k"] == sum(i["is_norm"] for i in scores.metadata["layer_infos"])
    assert any(guess.get("split.k") == 25 for guess in guesses)

    fixed = make_space(recipe_with(space={"split.k": [3], "split.rule": ["count"]}), scores)
    assert first_trials(recipe, scores, fixed) == []


def test_the_knee_is_where_the_curve_leaves_its_slope():
    assert find_knee([10.0, 10.0, 10.0, 1.0, 1.0, 1.0, 1.0]) == 3
    assert find_knee([5.0, 0.0, 0.0]) == 1
    assert find_knee([0.0, 0.0]) == 0
    assert find_knee([]) == 0
