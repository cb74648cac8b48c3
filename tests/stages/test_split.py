"""From scores to a split: what is chosen, and what is refused to be chosen from or read."""

import tomllib
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from recon_search.conflict.rules import rank
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import RecipeError
from recon_search.graph.branch import branch
from recon_search.graph.split import Split
from recon_search.model.backbone import create_backbone
from recon_search.model.facts import facts_of
from recon_search.recipe import parse_recipe
from recon_search.runs.run import Run
from recon_search.stages.split import (
    FROM_PROBE,
    check_k,
    check_scores,
    choose_split,
    reading_of,
)
from tests.stages.recipes import TINY
from tests.stages.scores import TASKS, noisy_scores


def recipe_with(**sections):
    raw = tomllib.loads(TINY)
    for name, values in sections.items():
        raw[name] = {**raw.get(name, {}), **values}
    return parse_recipe(raw)


def run_with(**sections):
    return Run(recipe_with(**sections), Path("out"))


@pytest.fixture(scope="module")
def scores():
    return noisy_scores(recipe_with())


@pytest.fixture(scope="module")
def identity():
    """What a split of the tiny recipe says of its backbone."""
    return facts_of(recipe_with().backbone, (1, 12, 12)).identity


def sizes(scores):
    return {info["name"]: info["n_parameters"] for info in scores.metadata["layer_infos"]}


# Scores


def changed(scores, layers=None, tasks=None, **metadata):
    return ConflictScores(
        layers or scores.layers, tasks or scores.tasks, {**scores.metadata, **metadata}
    )


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"backbone": {"features": 9}},  # classifiers may differ, as splits carry over
        {"train": {"lr": 0.3}, "head": {"activation": "gelu"}},
        {"split": {"k": 9}, "compare": {"seeds": 5}},
    ],
    ids=str,
)
def test_scores_of_the_recipes_tasks_and_backbone_are_taken(scores, sections):
    check_scores(scores, run_with(**sections))


@pytest.mark.parametrize("key", FROM_PROBE)
def test_scores_that_no_probe_wrote_are_refused(scores, key):
    given = changed(scores)
    del given.metadata[key]
    with pytest.raises(RecipeError, match=rf"these lack {key}\. Probe, or .*Split\.private"):
        check_scores(given, run_with())


def test_all_that_is_lacking_is_named(scores):
    with pytest.raises(RecipeError, match="these lack backbone, layer_infos, recipe, seeds"):
        check_scores(ConflictScores(scores.layers, scores.tasks), run_with())


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"tasks": ["seg", "depth"]}, "these are of seg, depth and resnet18"),
        ({"tasks": ["right", "left"]}, "these are of right, left and"),
        ({"tasks": ["left", "right", "more"]}, "these are of left, right, more and"),
        ({"layers": ["conv1", "bn1"]}, r"\(2 layers, digest"),
        ({"layers": "backwards"}, r"\(43 layers, digest"),
        ({"backbone": {"name": "resnet34", "digest": "0123"}}, "resnet34 .* digest 0123"),
    ],
    ids=str,
)
def test_scores_of_something_else_are_refused_and_both_are_named(scores, change, found):
    if change.get("layers") == "backwards":
        change = {"layers": list(scores.layers)[::-1]}
    with pytest.raises(RecipeError, match=found) as caught:
        check_scores(changed(scores, **change), run_with())
    assert "--scores must be of the recipe's tasks (left, right) and backbone (resnet18" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)


def test_scores_of_another_width_are_refused(scores):
    wider = run_with(backbone={"args": {"channels": [4, 4, 8, 16]}})
    with pytest.raises(RecipeError, match=r"--scores must be of the recipe's tasks"):
        check_scores(scores, wider)


# Splits that are chosen


@pytest.mark.parametrize("rule", ["count", "projection", "mass", "first-k", "random"])
@pytest.mark.parametrize("k", [0, 1, 7, 43])
def test_k_layers_are_split_worst_first(scores, rule, k):
    recipe = recipe_with(split={"rule": rule, "k": k})
    split = choose_split(recipe, scores)
    assert len(split.layers) == len(split.chosen["ranking"]) == k
    assert set(split.layers) == set(split.chosen["ranking"])
    order = {name: place for place, name in enumerate(scores.layers)}
    assert list(split.layers) == sorted(split.layers, key=order.__getitem__), "in graph order"
    fewer = choose_split(recipe_with(split={"rule": rule, "k": max(0, k - 1)}), scores)
    assert fewer.chosen["ranking"] == split.chosen["ranking"][: max(0, k - 1)]
    assert (split.chosen["rule"], split.chosen["k"]) == (rule, k)
    assert split.backbone == scores.metadata["backbone"]


@pytest.mark.parametrize("budget", ["1x", "1.01x", "1.3x", "2x", "9x"])
def test_a_budget_is_kept_and_used_up(scores, budget):
    recipe = recipe_with(split={"k": None, "max_params": budget, "rule": "mass"})
    split = choose_split(recipe, scores)
    own = sizes(scores)
    allowed = int(max(0.0, float(budget[:-1]) - 1) * sum(own.values()))
    added = sum(own[name] for name in split.layers)
    assert added <= allowed
    left = [size for name, size in own.items() if name not in split.layers]
    assert not left or added + min(left) > allowed


def test_a_searchs_budget_comes_beside_k_and_the_recipes_own_goes_first(scores):
    few = choose_split(recipe_with(split={"k": 2}), scores, "9x")
    assert len(few.layers) == 2
    assert not choose_split(recipe_with(split={"k": 2}), scores, "1x").layers
    own = recipe_with(split={"k": None, "max_params": "1.3x"})
    assert choose_split(own, scores, "9x") == choose_split(own, scores)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"split": {"k": 44}}, r"`split\.k` must be between 0 and 43 .*resnet18\), got 44"),
        ({"compare": {"rules": ["mass"], "ks": [3, 50]}}, r"`compare\.ks` must be .*got 50"),
    ],
)
def test_more_layers_than_there_are_are_refused(sections, message):
    with pytest.raises(RecipeError, match=message):
        check_k(recipe_with(**sections), 43)


def test_all_layers_may_be_split(scores):
    check_k(recipe_with(split={"k": 43}), 43)
    check_k(recipe_with(compare={"rules": ["mass"], "ks": [43]}), 43)
    check_k(recipe_with(split={"k": None, "max_params": "2x"}), 0)


# Groups and budgets


def test_with_affinity_the_same_groups_share_every_layer(scores):
    """Of two tasks: nobody is separated where S is below their affinity."""
    together = choose_split(recipe_with(split={"grouping": "affinity", "threshold": -0.9}), scores)
    assert not together.layers
    apart = {"grouping": "affinity", "max_groups": 2, "k": 4}
    split = choose_split(recipe_with(split=apart), scores)
    private = choose_split(recipe_with(split={"k": 4}), scores)
    assert dict(split.layers) == dict(private.layers)
    assert split.chosen["max_groups"] == 2


@pytest.mark.parametrize("limit", [1.0, 1.1, 1.5, 2.0])
def test_a_split_stays_within_its_flops(scores, limit):
    """As torch counts them on the branched network itself."""
    recipe = recipe_with(split={"k": None, "max_flops": f"{limit}x"})
    split = choose_split(recipe, scores, schema=run_with().schema)
    plain = create_backbone(recipe.backbone, in_chans=1)
    image = torch.zeros(1, 1, 12, 12)

    def flops(of):
        network = branch(plain, of).eval()
        network(image)  # written before it is counted
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(image)
        return counter.get_total_flops()

    alone = flops(Split(TASKS, {}))
    assert flops(split) <= limit * alone
    ranking = [layer for layer, _ in rank(scores, recipe.split.rule, reading_of(recipe))]
    assert limit < 2 or len(split.layers) == len(ranking)
    for layer in [layer for layer in ranking if layer not in split.layers][:3]:
        more = Split.private([*split.layers, layer], TASKS)
        assert flops(more) > limit * alone, f"{layer} would have fitted"


def test_a_split_of_no_layer_is_called_one(scores, tmp_path, invoke):
    (tmp_path / "tiny.toml").write_text(TINY.replace("k = 3", 'max_flops = "1x"'))
    scores.save(tmp_path / "scores.safetensors")
    done = invoke("split", "tiny.toml", "--scores", "scores.safetensors")
    assert done.code == 0, done.error
    assert "0 layers: all stay shared under this threshold or limit." in done.output


def test_a_limit_of_flops_goes_with_a_number_of_layers(scores):
    both = recipe_with(split={"k": 2, "max_flops": "1.9x"})
    alone = recipe_with(split={"k": None, "max_flops": "1.9x"})
    few = choose_split(both, scores, schema=run_with().schema)
    many = choose_split(alone, scores, schema=run_with().schema)
    assert len(few.layers) == 2
    assert few.layers.keys() <= many.layers.keys()
    assert few.chosen["max_flops"] == "1.9x"


def test_groups_are_limited_only_where_there_are_groups():
    with pytest.raises(RecipeError, match=r"needs `split\.grouping`"):
        recipe_with(split={"max_groups": 2})
