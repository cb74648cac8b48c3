"""Steps in which tasks are absent: every pair has its own steps, against loops over them."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_search.conflict.grouping import group_tasks
from recon_search.conflict.reliability import measure_reliability
from recon_search.conflict.rules import RULES, Reading, rank
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import RecipeError

LAYERS = ["one", "two", "three", "four"]
MEASURING = [rule.name for rule in RULES.values() if rule.measures]


def steps_of(seed, n_steps, tasks, chance=0.6):
    """Gramians of steps, with zeros for absent tasks, and which tasks are present in each."""
    generator = torch.Generator().manual_seed(seed)
    shape = n_steps, len(LAYERS), len(tasks), 4
    jacobians = torch.randn(shape, generator=generator, dtype=torch.float64)
    present = torch.rand(n_steps, len(tasks), generator=generator) < chance
    present[:2] = True  # every pair meets, in both halves
    jacobians *= present[:, None, :, None]
    return jacobians @ jacobians.mT, present


def scored(gramians, tasks, places=None):
    scores = ConflictScores(LAYERS, tasks)
    for index, step in enumerate(gramians):
        scores.update(step, at=index / len(gramians) if places is None else places[index])
    return scores


def reference(gramians, present, threshold):
    """By rule, each layer's value: loops over pairs and over the steps in which both are present.

    A count is a share of steps, times the steps of the pair that met most.
    """
    n_tasks = present.shape[1]
    values = {name: torch.zeros(len(LAYERS), dtype=torch.float64) for name in MEASURING}
    met = {
        (i, j): [step for step, here in enumerate(present) if here[i] and here[j]]
        for i, j in itertools.combinations(range(n_tasks), 2)
    }
    most = max(len(steps) for steps in met.values())
    for (i, j), steps in met.items():
        for step, layer in itertools.product(steps, range(len(LAYERS))):
            gramian, whole = gramians[step, layer], gramians[step].sum(0)
            cosine = gramian[i, j] / (gramian[i, i] * gramian[j, j]).sqrt()
            both = (whole[i, i] * whole[j, j]).sqrt()
            shorter = min(gramian[i, i], gramian[j, j]).sqrt()
            mean = 1 / len(steps)
            values["count"][layer] += most * mean * float(cosine < threshold)
            values["least"][layer] -= most * mean * float(cosine < threshold)
            values["projection"][layer] += mean * (-cosine).relu() * shorter / both.sqrt()
            values["mass"][layer] += mean * (-gramian[i, j]).relu() / both
            values["gain"][layer] -= mean * 2 * gramian[i, j] / both
    return values


@pytest.mark.parametrize("window", [(0.0, 1.0), (0.6, 1.0)])
@pytest.mark.parametrize("n_tasks", [2, 3, 5])
@pytest.mark.parametrize("rule", MEASURING)
def test_every_mean_is_over_a_pairs_own_steps(rule, n_tasks, window):
    tasks = [f"t{task}" for task in range(n_tasks)]
    gramians, present = steps_of(n_tasks, 120, tasks)
    first = int(window[0] * len(gramians))
    expected = reference(gramians[first:], present[first:], -0.1)[rule]
    found = dict(rank(scored(gramians, tasks), rule, Reading(-0.1, window)))
    assert [found[layer] for layer in LAYERS] == pytest.approx(expected.tolist(), rel=1e-12)


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), cut=st.integers(2, 28), chance=st.floats(0.3, 1.0))
def test_absence_survives_addition_and_resumption(seed, cut, chance):
    tasks = ["a", "b", "c"]
    gramians, present = steps_of(seed, 30, tasks, chance)
    places = [index / 30 for index in range(30)]
    whole = scored(gramians, tasks)
    resumed = ConflictScores(LAYERS, tasks)
    resumed.load_state(scored(gramians[:cut], tasks, places).tensors, "checkpoint")
    for step, at in zip(gramians[cut:], places[cut:], strict=True):
        resumed.update(step, at=at)
    assert resumed.digest == whole.digest
    total = scored(gramians[:cut], tasks, places) + scored(gramians[cut:], tasks, places[cut:])
    assert torch.equal(total.shares(-0.2), whole.shares(-0.2))
    both = [present[:, i] & present[:, j] for i, j in itertools.combinations(range(3), 2)]
    for scores in (whole, resumed, total):
        assert scores.pair_steps.tolist() == [int(met.sum()) for met in both]
        assert scores.steps == int((present.sum(1) >= 2).sum())
        assert scores.rank(-0.2) == whole.rank(-0.2)


@pytest.mark.parametrize("absent", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("n_tasks", [2, 3, 10])
def test_steps_that_lack_a_task_change_no_share(absent, n_tasks):
    """The steps in which b is there are the same; the others hold no b."""
    tasks = [chr(ord("a") + task) for task in range(n_tasks)]
    gramians, _ = steps_of(7, 20, tasks, chance=1.0)
    without = gramians[:1].clone()
    without[:, :, 1] = 0
    without[:, :, :, 1] = 0
    n_without = round(20 * absent / (1 - absent))
    scores = scored(torch.cat([gramians, without.expand(n_without, -1, -1, -1)]), tasks)
    expected = scored(gramians, tasks)
    of_b = [index for index, pair in enumerate(scores.pairs) if "b" in pair]
    assert torch.equal(scores.shares(0.0)[:, of_b], expected.shares(0.0)[:, of_b])
    assert scores.pair_steps[of_b].tolist() == [20] * len(of_b)
    if n_tasks == 2:
        assert scores.share(0.0) == expected.share(0.0)
        assert scores.steps == 20
    else:
        assert scores.share(0.0) == pytest.approx(float(scores.shares(0.0).mean()), rel=1e-12)


@pytest.mark.parametrize("n_tasks", [3, 9])
def test_a_pair_that_seldom_meets_ranks_by_its_share(n_tasks):
    """`two` always parts a and c, which meet in 10 of 100 steps; `one` parts a and b in half."""
    tasks = [f"t{task}" for task in range(n_tasks)]
    scores = ConflictScores(["one", "two"], tasks)
    for step in range(100):
        gramians = torch.eye(n_tasks).repeat(2, 1, 1)
        if step % 2:
            gramians[0, 0, 1] = gramians[0, 1, 0] = -0.5
        gramians[1, 0, 2] = gramians[1, 2, 0] = -0.5
        if step % 10:
            gramians[:, 2] = gramians[:, :, 2] = 0
        scores.update(gramians, at=step / 100)
    assert scores.rank() == ["two", "one"]
    for rule in ("count", "projection", "mass"):
        assert [layer for layer, _ in rank(scores, rule, Reading())] == ["two", "one"]
    groups = group_tasks(scores, "two", 0.0, 1.0)
    assert not any({"t0", "t2"} <= set(group) for group in groups)


def in_turn(n_tasks):
    """One task a step, in turn."""
    scores = ConflictScores(LAYERS, [f"t{task}" for task in range(n_tasks)])
    for step in range(30):
        gramians = torch.zeros(len(LAYERS), n_tasks, n_tasks)
        gramians[:, step % n_tasks, step % n_tasks] = 1.0
        scores.update(gramians, at=step / 30)
    return scores


@pytest.mark.parametrize("n_tasks", [1, 2, 4])
def test_one_task_a_step_measures_nothing(n_tasks):
    scores = in_turn(n_tasks)
    assert scores.steps == 0
    for read in (scores.counts, scores.shares, scores.share, scores.totals, scores.rank):
        with pytest.raises(RecipeError, match="must hold measured steps"):
            read()
    with pytest.raises(RecipeError, match="must hold measured steps"):
        group_tasks(scores, "one", 0.0, 0.5)
    for rule in MEASURING:
        with pytest.raises(RecipeError, match=r"needs measured steps .* found none of 0"):
            rank(scores, rule, Reading())
        with pytest.raises(RecipeError, match=r"needs measured steps .* found none of 0"):
            measure_reliability(scores, rule, Reading(), 2)
    assert [layer for layer, _ in rank(scores, "first-k", Reading())] == LAYERS


def apart():
    """Tasks a and b meet, b and c too; a and c never, b and c in the second half alone."""
    scores = ConflictScores(LAYERS, ["a", "b", "c"])
    gramians, _ = steps_of(0, 40, "abc", chance=1.0)
    for step, gramian in enumerate(gramians):
        scores.update(gramian, at=step / 40, present=["b", "ac"[step // 20]])
    return scores


def test_a_pair_that_never_met_is_not_measured():
    scores = apart()
    assert scores.unmeasured == [("a", "c")]
    assert scores.shares()[:, 1].isnan().all()
    assert not scores.shares()[:, [0, 2]].isnan().any()
    assert scores.share() == pytest.approx(float(scores.shares().nanmean()))


def test_what_needs_every_pair_refuses_one_that_never_met():
    scores = apart()
    message = "'a' and 'c' never had a loss in the same step"
    with pytest.raises(RecipeError, match=message):
        scores.rank()
    with pytest.raises(RecipeError, match=message):
        group_tasks(scores, "one", 0.0, 0.5)
    for rule in RULES.values():
        if rule.measures:
            with pytest.raises(RecipeError, match=message):
                rank(scores, rule.name, Reading())
        elif not rule.needs_infos:
            assert len(rank(scores, rule.name, Reading())) == len(LAYERS)


def test_a_window_needs_every_pair_too():
    scores = ConflictScores(LAYERS, ["a", "b", "c"])
    gramians, _ = steps_of(0, 40, "abc", chance=1.0)
    for step, gramian in enumerate(gramians):
        scores.update(gramian, at=step / 40, present=["a", "b", "c"][: 3 if step < 20 else 2])
    assert len(rank(scores, "mass", Reading())) == len(LAYERS)
    with pytest.raises(RecipeError, match=r"measured in the window \[0\.6, 1\.0\] for rule 'mass'"):
        rank(scores, "mass", Reading(window=(0.6, 1.0)))


def test_a_task_with_zero_gradient_in_one_layer_is_present():
    gramians = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 1, 1)
    gramians[0, 0] = gramians[0, :, 0] = 0
    scores = ConflictScores(["zero", "other"], ["a", "b"])
    scores.update(gramians)
    assert scores.steps == 1
    assert scores.shares().tolist() == [[0.0], [1.0]]


@pytest.mark.parametrize(
    "present",
    [
        ["a", "c"],
        ("c", "a"),
        {"a", "c"},
        {"a": torch.ones(()), "b": None, "c": torch.ones(())},
        iter("ac"),
        torch.tensor([True, False, True]),
        [True, False, True],
    ],
    ids=["list", "order", "set", "losses", "iterator", "tensor", "bools"],
)
def test_present_tasks_are_named_or_flagged(present):
    scores = ConflictScores(LAYERS, ["a", "b", "c"])
    gramians, _ = steps_of(0, 1, "abc", chance=1.0)
    scores.update(gramians[0], present=present)
    assert scores.pair_steps.tolist() == [0, 1, 0]
    gramians[:, :, 1] = gramians[:, :, :, 1] = 0  # what is deduced without it
    deduced = ConflictScores(LAYERS, ["a", "b", "c"])
    deduced.update(gramians[0])
    assert deduced.digest == scores.digest


def test_what_an_absent_task_left_behind_is_not_looked_at():
    scores = ConflictScores(["one"], ["a", "b", "c"])
    gramian = torch.eye(3)
    gramian[1] = gramian[:, 1] = math.nan
    scores.update(gramian[None], present=["a", "c"])
    assert scores.pair_steps.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("present", "message"),
    [
        ("ab", "must be names of tasks or bools"),
        (["a", "depht"], "must name tasks of a, b, depth, got 'depht'. Did you mean 'depth'"),
        ([True, False], "must be names of tasks or bools"),
        (torch.ones(4, dtype=torch.bool), r"bools of shape \(3,\), got \(4,\)"),
        (torch.ones(3), "must be names of tasks or bools"),
        (["a", True, "b"], "must be names of tasks or bools"),
    ],
)
def test_present_that_is_neither_names_nor_flags_is_refused(present, message):
    scores = ConflictScores(LAYERS, ["a", "b", "depth"])
    with pytest.raises(RecipeError, match=message):
        scores.update(torch.eye(3).expand(4, 3, 3), present=present)
    assert scores.steps == 0


def test_halves_alternate_within_each_pair():
    """Pairs that meet in turn must not each fall into a half of their own."""
    scores = ConflictScores(LAYERS, ["a", "b", "c"])
    gramians, _ = steps_of(0, 80, "abc", chance=1.0)
    for step, gramian in enumerate(gramians):
        scores.update(gramian, present=[["a", "b"], ["a", "c"], ["b", "c"], ["a", "b"]][step % 4])
    by_half = scores.blocks("pair_steps").sum((0, 1))  # (halves, pairs)
    assert by_half.tolist() == [[20, 10, 10]] * 2


@pytest.mark.parametrize("n_tasks", [6, 12])
def test_a_random_subset_of_tasks_a_step_gives_unbiased_shares(n_tasks):
    """Four tasks a step, drawn anew: what is found differs from what all tasks show by chance."""
    tasks = [f"t{task}" for task in range(n_tasks)]
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(1, len(LAYERS), n_tasks, 8, generator=generator)
    noise = torch.randn(1500, len(LAYERS), n_tasks, 8, generator=generator)
    jacobians = (direction + noise).double()
    every, some = ConflictScores(LAYERS, tasks), ConflictScores(LAYERS, tasks)
    for step, gramians in enumerate(jacobians @ jacobians.mT):
        every.update(gramians, at=step / 1500)
        drawn = torch.randperm(n_tasks, generator=generator)[:4]
        some.update(gramians, at=step / 1500, present=[tasks[index] for index in drawn.tolist()])
    expected, found = every.shares(-0.1), some.shares(-0.1)
    deviation = (expected * (1 - expected) / some.pair_steps).sqrt().clamp(min=1e-3)
    assert ((found - expected).abs() / deviation).max() < 4.5  # of up to 264 standard normals
    assert ((found - expected) / deviation).mean().abs() < 0.3
    assert some.share(-0.1) == pytest.approx(every.share(-0.1), abs=0.02)
    for rule in ("projection", "mass"):
        values = dict(rank(every, rule, Reading()))
        assert dict(rank(some, rule, Reading())) == pytest.approx(values, rel=0.1)
    late = Reading(-0.1, (0.5, 1.0))
    by_all = torch.tensor([value for _, value in sorted(rank(every, "count", late))])
    by_some = torch.tensor([value for _, value in sorted(rank(some, "count", late))])
    torch.testing.assert_close(by_some / by_some.sum(), by_all / by_all.sum(), atol=0.03, rtol=0.1)
