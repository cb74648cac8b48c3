"""Groups of tasks from conflict graphs whose colouring is known."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recon_search.conflict.grouping import affinities, cluster_tasks, group_tasks
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import RecipeError

TASKS = ["a", "b", "c", "d"]


def scores_with(edges, steps=4):
    """Scores of one layer in which exactly the pairs of `edges` conflict, on every step."""
    gramian = 4.0 * torch.eye(4)
    for first, second in edges:
        i, j = TASKS.index(first), TASKS.index(second)
        gramian[i, j] = gramian[j, i] = -1.0
    scores = ConflictScores(["layer"], TASKS)
    for _ in range(steps):
        scores.update(gramian[None])
    return scores


@pytest.mark.parametrize(
    ("edges", "groups"),
    [
        ([], (("a", "b", "c", "d"),)),
        (["ab"], 2),
        (["da", "db", "dc"], (("a", "b", "c"), ("d",))),  # one against the rest: one extra copy
        (["ab", "bc", "cd", "da"], (("a", "c"), ("b", "d"))),
        (["ab", "ac", "ad", "bc", "bd", "cd"], (("a",), ("b",), ("c",), ("d",))),
    ],
)
def test_known_graphs(edges, groups):
    found = group_tasks(scores_with(edges), "layer", 0.0, 0.5)
    assert (len(found) if isinstance(groups, int) else found) == groups


@given(edges=st.sets(st.sampled_from(["ab", "ac", "ad", "bc", "bd", "cd"])))
def test_no_group_holds_two_tasks_that_conflict(edges):
    groups = group_tasks(scores_with(edges), "layer", 0.0, 1.0)
    assert sorted(task for group in groups for task in group) == TASKS
    for group in groups:
        assert not any(edge[0] in group and edge[1] in group for edge in edges)


def test_the_share_of_steps_decides():
    scores = scores_with(["ab"], steps=1) + scores_with([], steps=2)
    assert len(group_tasks(scores, "layer", 0.0, 1 / 3)) == 2
    assert len(group_tasks(scores, "layer", 0.0, 0.5)) == 1


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_share_out_of_range(share):
    with pytest.raises(RecipeError, match=r"group_share` must lie in \(0, 1\]"):
        group_tasks(scores_with([]), "layer", 0.0, share)


def test_an_unknown_layer_names_near_ones():
    with pytest.raises(RecipeError, match=r"must be one that was measured, got 'layr'. Did you"):
        group_tasks(scores_with([]), "layr", 0.0, 0.5)


def test_the_share_is_of_the_steps_in_which_both_were_there():
    """a and b conflict in all of the two steps in which they meet, of ten."""
    gramian = 4.0 * torch.eye(4)
    gramian[0, 1] = gramian[1, 0] = -1.0
    scores = ConflictScores(["layer"], TASKS)
    for step in range(10):
        scores.update(gramian[None], present=TASKS if step < 2 else ["a", "c", "d"])
    groups = group_tasks(scores, "layer", 0.0, 1.0)
    assert not any({"a", "b"} <= set(group) for group in groups)


# Affinity


def scores_of(cosines, steps=3, layers=("layer",)):
    """Scores of tasks whose gradients have these cosines (T, T) in every layer and step."""
    scores = ConflictScores(layers, TASKS[: len(cosines)])
    lengths = torch.arange(1.0, len(cosines) + 1)
    gramian = torch.as_tensor(cosines) * lengths * lengths[:, None]
    for _ in range(steps):
        scores.update(gramian.expand(len(layers), -1, -1))
    return scores


BLOCKS = [[1, 0.6, -0.4, -0.3], [0.6, 1, -0.2, -0.5], [-0.4, -0.2, 1, 0.3], [-0.3, -0.5, 0.3, 1]]


def test_affinities_are_mean_cosines_whatever_the_lengths():
    found = affinities(scores_of(BLOCKS), ["layer"])
    assert found == pytest.approx(np.array(BLOCKS), abs=0.0051)
    both = scores_of(BLOCKS, steps=1) + scores_of(np.eye(4), steps=3)
    expected = np.where(np.eye(4) > 0, 1, np.array(BLOCKS) / 4)
    assert affinities(both, ["layer"]) == pytest.approx(expected, abs=0.0051)


@given(seed=st.integers(0, 2**31 - 1), n_steps=st.integers(1, 5))
def test_affinities_are_those_of_the_gradients(seed, n_steps):
    """Over layers and steps, from gradients of which some steps lack a task."""
    generator = torch.Generator().manual_seed(seed)
    scores = ConflictScores(["x", "y"], TASKS)
    sums, met = np.zeros((4, 4)), np.zeros((4, 4))
    for _ in range(n_steps + 1):
        gradients = torch.randn(2, 4, 6, generator=generator, dtype=torch.float64)
        missing = int(torch.randint(4, (), generator=generator)) if met.all() else None
        present = [index for index in range(4) if index != missing]
        if missing is not None:
            gradients[:, missing] = 0
        scores.update(
            gradients @ gradients.transpose(1, 2), present=[TASKS[index] for index in present]
        )
        for i, j in itertools.product(present, present):
            a, b = gradients[:, i], gradients[:, j]
            sums[i, j] += float(torch.cosine_similarity(a, b, dim=1).mean())
            met[i, j] += 1
    found = affinities(scores, ["y", "x"])
    off = ~np.eye(4, dtype=bool)
    assert found[off] == pytest.approx((sums / met)[off], abs=0.0051)


@pytest.mark.parametrize(
    ("threshold", "max_groups", "groups"),
    [
        (0.0, None, (("a", "b"), ("c", "d"))),
        (-0.5, None, (("a", "b", "c", "d"),)),
        (0.0, 2, (("a", "b"), ("c", "d"))),
        (0.0, 3, (("a", "b"), ("c",), ("d",))),
        (0.0, 4, (("a",), ("b",), ("c",), ("d",))),
        (0.0, 9, (("a",), ("b",), ("c",), ("d",))),
    ],
)
def test_those_that_agree_share_a_copy(threshold, max_groups, groups):
    scores = scores_of(BLOCKS, layers=("x", "y"))
    assert cluster_tasks(scores, ["x", "y"], threshold, max_groups) == groups


@given(n=st.integers(2, 6), cosine=st.sampled_from([1.0, 0.5, 0.0, -0.1]), most=st.integers(2, 8))
def test_there_are_as_many_groups_as_wanted_where_all_agree_alike(n, cosine, most):
    scores = ConflictScores(["layer"], [f"t{task}" for task in range(n)])
    scores.update((cosine + (1 - cosine) * torch.eye(n))[None])
    assert len(cluster_tasks(scores, ["layer"], 0.0, most)) == min(most, n)


def test_each_layer_counts():
    """Where two layers disagree it is the mean that decides."""
    scores = ConflictScores(["x", "y"], TASKS)
    against = torch.tensor(BLOCKS).roll((1, 1), (0, 1))
    scores.update(torch.stack([torch.tensor(BLOCKS), against]))
    assert cluster_tasks(scores, ["x"], 0.0, 2) == (("a", "b"), ("c", "d"))
    assert cluster_tasks(scores, ["y"], 0.0, 2) == (("a", "d"), ("b", "c"))


@given(
    edges=st.sets(st.sampled_from(["ab", "ac", "ad", "bc", "bd", "cd"])), limit=st.integers(2, 4)
)
def test_colours_are_joined_until_they_are_few_enough(edges, limit):
    scores = scores_with(edges)
    groups = group_tasks(scores, "layer", 0.0, 0.5, limit)
    free = group_tasks(scores, "layer", 0.0, 0.5)
    assert len(groups) == min(limit, len(free))
    assert sorted(task for group in groups for task in group) == TASKS
    for colour in free:  # nobody is torn apart
        assert any(set(colour) <= set(group) for group in groups)


def test_of_too_many_colours_those_that_agree_most_are_joined():
    cosines = torch.eye(4) - 0.2 * (1 - torch.eye(4))
    cosines[1, 3] = cosines[3, 1] = -0.1
    assert group_tasks(scores_of(cosines), "layer", 0.0, 0.5, 3) == (("a",), ("b", "d"), ("c",))


def test_affinity_needs_what_was_measured():
    scores = ConflictScores(["layer"], TASKS)
    with pytest.raises(RecipeError, match="measured"):
        cluster_tasks(scores, ["layer"], 0.0)
    scores.update(torch.eye(4)[None], present=["a", "b", "c"])
    with pytest.raises(RecipeError, match="never"):
        cluster_tasks(scores, ["layer"], 0.0)
    with pytest.raises(RecipeError, match=r"got 'lajer'. Did you mean 'layer'"):
        cluster_tasks(scores_of(BLOCKS), ["lajer"], 0.0)
