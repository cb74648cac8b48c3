"""Ranking rules on Gramians whose answers are known by hand."""

import pytest
import torch

from recon_search.conflict.rules import RULES, Reading, find_rule, n_parameters, rank, within_budget
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import RecipeError

INFOS = [
    {"name": "conv", "type": "Conv2d", "n_parameters": 30, "is_norm": False},
    {"name": "norm", "type": "BatchNorm2d", "n_parameters": 2, "is_norm": True},
    {"name": "head", "type": "Linear", "n_parameters": 10, "is_norm": False},
]


@pytest.fixture
def scores():
    """One early step in which only `conv` conflicts, one late step in which only `head` does."""
    scores = ConflictScores([info["name"] for info in INFOS], ["a", "b"], {"layer_infos": INFOS})
    agree = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
    conflict = torch.tensor([[4.0, -1.0], [-1.0, 1.0]])  # cos = -0.5
    scores.update(torch.stack([conflict, agree, agree]), at=0.0)
    scores.update(torch.stack([agree, agree, conflict]), at=0.95)
    return scores


def test_every_rule_orders_every_layer_but_norm_only(scores):
    for name in RULES:
        ranked = [layer for layer, _ in rank(scores, name, Reading())]
        assert sorted(ranked) == (["norm"] if name == "norm-only" else ["conv", "head", "norm"])


def test_windows_read_their_part_alone(scores):
    late, early = Reading(window=(0.6, 1.0)), Reading(window=(0.0, 0.5))
    for name in ("count", "projection", "mass", "gain"):
        assert rank(scores, name, late)[0][0] == "head"
        assert rank(scores, name, early)[0][0] == "conv"


def test_projection_and_mass_by_hand(scores):
    # The whole network's squared norms are 12 and 3, so N_a N_b = 6; n_a = 2, n_b = 1.
    late = Reading(window=(0.9, 1.0))
    assert dict(rank(scores, "projection", late))["head"] == pytest.approx(0.5 * 1 / 6**0.5)
    assert dict(rank(scores, "mass", late))["head"] == pytest.approx(1 / 6)
    assert dict(rank(scores, "gain", late))["head"] == pytest.approx(2 / 6)


def test_random_depends_on_the_seed_alone(scores):
    orders = {tuple(rank(scores, "random", Reading(seed=seed))) for seed in range(20)}
    assert len(orders) > 1
    assert rank(scores, "random", Reading(seed=3)) == rank(scores, "random", Reading(seed=3))


def test_budget_passes_over_layers_that_do_not_fit(scores):
    layers = ["conv", "norm", "head"]
    costs = dict(zip(scores.layers, n_parameters(scores), strict=True))
    assert within_budget(layers, costs, 12) == ["norm", "head"]
    assert within_budget(layers, costs, 0) == []


OFF = [(0.5, 0.5), (0.0, 1.2), (-0.1, 1.0), (0.65, 0.95), (float("nan"), 1.0), (0.0, float("inf"))]


@pytest.mark.parametrize("window", OFF)
def test_window_out_of_range(scores, window):
    with pytest.raises(RecipeError, match="probe window must be"):
        rank(scores, "count", Reading(window=window))


@pytest.mark.parametrize("rule", [rule.name for rule in RULES.values() if rule.measures])
def test_a_window_without_a_measured_step_has_no_ranking(rule):
    scores = ConflictScores(["conv1", "bn1"], ["a", "b"])
    scores.update(torch.eye(2).expand(2, 2, 2), at=0.0)
    assert len(rank(scores, rule, Reading())) == 2
    with pytest.raises(RecipeError, match=r"needs measured steps in the window .* found none of 1"):
        rank(scores, rule, Reading(window=(0.6, 1.0)))
    assert len(rank(scores, "first-k", Reading(window=(0.6, 1.0)))) == 2


def test_unknown_rule_names_near_ones(scores):
    with pytest.raises(RecipeError, match="Did you mean 'projection'"):
        rank(scores, "projectoin", Reading())


def test_a_rule_says_what_it_reads(scores):
    """Held against what it does: a rule that needs something fails or changes without it."""
    bare = ConflictScores(scores.layers, scores.tasks)
    bare.load_state(scores.tensors, "scores")
    empty = ConflictScores(scores.layers, scores.tasks, scores.metadata)
    steep = torch.tensor([[[1.0, -0.1], [-0.1, 1.0]], [[1.0, -0.5], [-0.5, 1.0]]])
    mixed = ConflictScores(["weak", "strong"], ["a", "b"], {"layer_infos": INFOS[:2]})
    for index in range(6):
        mixed.update(steep if index < 2 else steep * torch.tensor([1.0, -1.0]).view(2, 1, 1))
    for rule in RULES.values():
        assert fails(bare, rule.name) is rule.needs_infos
        assert fails(empty, rule.name) is rule.measures
        orders = {tuple(rank(scores, rule.name, Reading(seed=seed))) for seed in range(20)}
        assert (len(orders) > 1) is rule.is_random
        values = {tuple(rank(mixed, rule.name, Reading(s))) for s in (0.0, -0.2, -0.9)}
        assert (len(values) > 1) is rule.reads_threshold


def fails(scores, rule):
    try:
        rank(scores, rule, Reading())
    except RecipeError:
        return True
    return False


@pytest.mark.parametrize(
    ("rule", "label", "is_control"),
    [
        ("count", "rule count, 7 layers", False),
        ("projection", "rule projection, 7 layers", False),
        ("mass", "rule mass, 7 layers", False),
        ("gain", "rule gain, 7 layers", False),
        ("least", "least conflict 7", True),
        ("first-k", "first 7 layers", True),
        ("last-k", "last 7 layers", True),
        ("random", "random 7 layers", True),
        ("smallest-first", "smallest 7 layers", True),
        ("norm-only", "norm layers only", True),
    ],
)
def test_a_rule_has_its_label(rule, label, is_control):
    found = find_rule(rule)
    assert (found.name, found.describe(7), found.is_control) == (rule, label, is_control)
    assert len(RULES) == 10
