"""Ranking rules on Gramians whose answers are known by hand."""

import pytest
import torch

from recon_search.conflict.rules import RULES, Reading, rank, within_budget
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
    assert within_budget(["conv", "norm", "head"], scores, 12) == ["norm", "head"]
    assert within_budget(["conv", "norm", "head"], scores, 0) == []


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
