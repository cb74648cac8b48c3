"""Groups of tasks from conflict graphs whose colouring is known."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recon_search.conflict.grouping import group_tasks
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
