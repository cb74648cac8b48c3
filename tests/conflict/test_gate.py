"""The laws of the gate, and what it says of gradients whose relation is known."""

import math

import pytest
import torch

from recon_search.conflict.gate import measure_gate
from recon_search.conflict.rules import Reading
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import RecipeError
from recon_search.views.ranking import describe_gate, ranking_summary

L, STEPS = 12, 60
READING = Reading()


def make_scores(jacobians, tasks="ab", scale=None):
    """Scores of gradients (steps, L, T, d)."""
    if scale is not None:
        jacobians = jacobians * torch.tensor(scale)[:, None]
    scores = ConflictScores([f"l{i}" for i in range(jacobians.shape[1])], tuple(tasks))
    for step, own in enumerate(jacobians):
        scores.update(own @ own.mT, at=step / len(jacobians))
    return scores


def draw(common=0.0, n_tasks=2, dimension=40, seed=0):
    """Gradients that share a direction, or with a negative `common` are set against it in turn."""
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(STEPS, L, n_tasks, dimension, generator=generator, dtype=torch.float64)
    shared = torch.randn(STEPS, L, 1, dimension, generator=generator, dtype=torch.float64)
    signs = torch.ones(n_tasks)
    if common < 0:
        signs[1::2] = -1
    return own + abs(common) * signs[:, None] * shared


def share(jacobians, rule="projection", k=3, **kwargs):
    return measure_gate(make_scores(jacobians, **kwargs), rule, READING, k)


@pytest.mark.parametrize("dimension", [3, 400])
@pytest.mark.parametrize("rule", ["projection", "count", "gain", "first-k"])
def test_independent_gradients_are_in_balance_in_any_dimension(rule, dimension):
    found = [share(draw(dimension=dimension, seed=seed), rule) for seed in range(12)]
    mean = sum(each.share for each in found) / len(found)
    assert mean == pytest.approx(0.5, abs=0.03), "the worst layers by chance are no worse"
    assert sum(each.advice != "cannot tell" for each in found) <= 3


@pytest.mark.parametrize(("common", "advice"), [(1.0, "do not split"), (-1.0, "split")])
def test_tasks_that_help_or_hinder_each_other_are_told_apart(common, advice):
    found = share(draw(common))
    assert found.advice == advice
    assert found.interval[0] <= found.share <= found.interval[1]
    assert advice in describe_gate(found) or "may help" in describe_gate(found)


def test_the_ends_are_always_and_never():
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(STEPS, L, 1, 5, generator=generator, dtype=torch.float64)
    same = share(torch.cat([gradient, 2 * gradient], 2))
    opposed = share(torch.cat([gradient, -gradient], 2))
    assert (same.share, same.interval, same.advice) == (0, (0, 0), "do not split")
    assert (opposed.share, opposed.interval, opposed.advice) == (1, (1, 1), "split")


def test_turning_one_task_round_gives_the_rest():
    """By a rule that chooses the same layers for both."""
    gradients = draw(0.3)
    turned = gradients * torch.tensor([1.0, -1.0])[:, None]
    assert share(gradients, "first-k").share == pytest.approx(1 - share(turned, "first-k").share)


@pytest.mark.parametrize("n_tasks", [2, 3])
def test_neither_scale_nor_order_of_tasks_counts(n_tasks):
    """By a rule whose choice of layers does not depend on them."""
    tasks, gradients = "abc"[:n_tasks], draw(0.2, n_tasks)
    found = share(gradients, "mass", tasks=tasks)
    scaled = share(gradients, "mass", tasks=tasks, scale=[100.0, 1e-3, 7.0][:n_tasks])
    turned = share(gradients.flip(2), "mass", tasks=tasks)
    for other in (scaled, turned):
        assert other.share == pytest.approx(found.share)
        assert other.interval == pytest.approx(found.interval)


def test_the_worst_layer_is_found_among_layers_that_agree():
    gradients = draw(1.0)
    gradients[:, 4] = draw(-1.0, seed=1)[:, 4]
    assert share(gradients, k=1).advice == "split"
    assert share(gradients, k=L).advice == "do not split"
    assert share(gradients, k=10 * L) == share(gradients, k=L)


def test_gradients_that_meet_nowhere_say_nothing():
    gradients = torch.zeros(STEPS, L, 2, 2, dtype=torch.float64)
    gradients[:, :, 0, 0] = gradients[:, :, 1, 1] = 1.0
    found = share(gradients)
    assert math.isnan(found.share)
    assert found.advice == "cannot tell"
    assert "says nothing" in describe_gate(found)
    summary = ranking_summary(make_scores(gradients), "projection", READING, 3)["gate"]
    assert summary == {"k": 3, "share": None, "low": None, "high": None,
                       "advice": "cannot tell", "validated": False}  # fmt: skip


def test_a_probe_that_measured_nothing_is_refused():
    scores = ConflictScores(["a"], ["x", "y"])
    with pytest.raises(RecipeError, match="needs measured steps"):
        measure_gate(scores, "projection", READING, 1)
    assert math.isnan(measure_gate(scores, "first-k", READING, 1).share)
