"""Steps that sample tasks are those of the papers that propose it, on the whole Jacobian."""

import pytest
import torch
from torchjd import aggregation

import recon_search as rs
from recon_search.errors import RecipeError
from recon_search.methods.registry import METHODS, check_method
from tests.methods.small import gradients_of, losses_of, make_small, rows_of
from tests.methods.test_surgeon import count_passes

TASKS = ("a", "b", "c", "d", "e")
SAMPLED = [name for name, method in METHODS.items() if method.others is not None]


def make(split=False):
    """Copies of three tasks, of two and of one, if split."""
    groups = {"2": (("a", "b", "c"), ("d", "e")), "4": (("a",), ("b", "c", "d"), ("e",))}
    return make_small(groups if split else {}, TASKS)


def sampled(model, method, n, **options):
    return rs.create_surgeon(model, method, {"tasks_per_step": n, **options})


def drawn(seed, n):
    """The tasks that the next step draws."""
    torch.manual_seed(seed)
    found = torch.randperm(len(TASKS))[:n].tolist()
    torch.manual_seed(seed)
    return [TASKS[number] for number in found]


def by_paper(method, model, losses, chosen):
    """The gradients from the whole Jacobian of what equal tasks reach.

    CAGrad: equation 4, whose minimum over the tasks that are not chosen is one over equal rows.
    Jacobian descent: the chosen rows alone.
    """
    rows = rows_of(model, losses)
    sets, expected = {}, {}
    for name, _ in model.named_parameters():
        users = tuple(task for task in losses if name in rows[task])
        if users:
            sets.setdefault(users, []).append(name)
    for users, names in sets.items():
        jacobian = torch.stack([torch.cat([rows[t][n].flatten() for n in names]) for t in users])
        others = [place for place, task in enumerate(users) if task not in chosen]
        if len(users) == 1:
            vector = jacobian[0]
        elif method == "cagrad":
            if others:
                jacobian[others] = jacobian[others].mean(0)
            vector = aggregation.CAGrad(c=0.5)(jacobian)
        else:
            kept = jacobian[[place for place in range(len(users)) if place not in others]]
            vector = aggregation.UPGrad()(kept) if len(kept) else torch.zeros_like(jacobian[0])
        sizes = [rows[users[0]][name].numel() for name in names]
        for name, piece in zip(names, vector.split(sizes), strict=True):
            expected[name] = piece.view_as(rows[users[0]][name])
    return expected


@pytest.mark.parametrize("split", [False, True], ids=["unsplit", "split"])
@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("method", SAMPLED)
def test_a_step_is_that_of_the_paper(method, n, split):
    model = make(split)
    surgeon = sampled(model, method, n)
    for seed in range(3):
        model.zero_grad()
        losses = losses_of(model, seed)
        expected = by_paper(method, model, losses, drawn(seed, n))
        surgeon.backward(losses)
        found = gradients_of(model)
        assert found.keys() == expected.keys()
        scale = max(float(gradient.abs().max()) for gradient in expected.values())
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("method", SAMPLED)
def test_drawing_all_tasks_is_the_method_itself(method):
    models = [make(), make(), make()]
    for model, options in zip(
        models, ({}, {"tasks_per_step": 5}, {"tasks_per_step": 9}), strict=True
    ):
        rs.create_surgeon(model, method, options).backward(losses_of(model))
    first, *others = [gradients_of(model) for model in models]
    for other in others:
        for name, gradient in other.items():
            assert torch.equal(gradient, first[name])


@pytest.mark.parametrize("split", [False, True], ids=["unsplit", "split"])
def test_the_average_of_all_tasks_is_exact_whichever_are_drawn(split):
    """Without its ball CAGrad is the average."""
    whole = make(split)
    rs.create_surgeon(whole, "mean").backward(losses_of(whole))
    for seed in range(4):
        torch.manual_seed(seed)
        model = make(split)
        sampled(model, "cagrad", 2, c=0.0).backward(losses_of(model))
        for name, gradient in gradients_of(whole).items():
            torch.testing.assert_close(gradients_of(model)[name], gradient)


@pytest.mark.parametrize("split", [False, True], ids=["unsplit", "split"])
@pytest.mark.parametrize("measure", [True, ("a", "d"), ("b",)])
@pytest.mark.parametrize("method", SAMPLED)
def test_measuring_changes_nothing_that_is_trained(method, measure, split):
    found, measured = [], None
    for what in (False, measure):
        surgeon = sampled(model := make(split), method, 2)
        drawn(7, 2)
        gramians = surgeon.backward(losses_of(model), measure=what)
        found.append(gradients_of(model))
        measured = gramians
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-6, atol=1e-8)
    joint = rs.create_surgeon(model := make(split), "joint")
    every = joint.backward(losses_of(model), measure=True)
    known = [t in drawn(7, 2) or measure is True or t in measure for t in TASKS]
    mask = torch.tensor(known)
    torch.testing.assert_close(measured, every * (mask[:, None] & mask))


@pytest.mark.parametrize("method", SAMPLED)
def test_a_step_costs_a_pass_for_each_task_drawn_and_one_for_the_others(method, monkeypatch):
    surgeon = sampled(model := make(), method, 2)
    calls = count_passes(monkeypatch)
    surgeon.backward(losses_of(model))
    assert len(calls) == 3
    calls.clear()
    surgeon.backward(losses_of(model), measure=True)
    assert len(calls) == 5


@pytest.mark.parametrize("method", SAMPLED)
def test_each_step_draws_anew_and_a_step_of_several_batches_once(method):
    surgeon, draws = sampled(model := make(), method, 2), []
    for seed in range(8):
        for batch in (0, 1):
            surgeon.accumulate(losses_of(model, seed + batch))
            draws.append(surgeon.sampling.drawn)
        surgeon.combine()
    assert draws[::2] == draws[1::2]
    assert len(set(draws)) > 3


@pytest.mark.parametrize("method", SAMPLED)
def test_two_batches_are_combined_after_their_gradients_have_added_up(method):
    models = make(), make()
    once, twice = (sampled(model, method, 2) for model in models)
    torch.manual_seed(3)
    pairs = [losses_of(models[0], seed) for seed in (0, 1)]
    once.backward({task: sum(losses[task] for losses in pairs) / 2 for task in TASKS})
    torch.manual_seed(3)
    for seed in (0, 1):
        twice.accumulate(losses_of(models[1], seed), share=0.5)
    twice.combine()
    expected = gradients_of(models[0])
    for name, gradient in gradients_of(models[1]).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("absent", [("a",), ("a", "b", "c", "d"), TASKS])
@pytest.mark.parametrize("method", SAMPLED)
def test_an_absent_task_takes_no_part(method, absent):
    surgeon = sampled(model := make(True), method, 3)
    losses = {task: None if task in absent else one for task, one in losses_of(model).items()}
    chosen = drawn(1, 3)
    surgeon.backward(losses)
    present = {task: one for task, one in losses_of(model).items() if task not in absent}
    found = gradients_of(model)
    expected = by_paper(method, model, present, chosen) if present else {}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_gradients_that_are_not_finite_spoil_the_step_drawn_or_not(task):
    surgeon = sampled(model := make(), "cagrad", 2)
    losses = losses_of(model)
    losses[task] = losses[task] * torch.inf
    assert surgeon.backward(losses, measure=("a",)) is None
    assert "those of task 'one that was not drawn'" in surgeon.fault or f"'{task}'" in surgeon.fault
    assert surgeon.n_skipped == 1
    surgeon.backward(losses_of(model))
    assert surgeon.fault is None


def test_only_methods_whose_papers_sample_tasks_do():
    assert SAMPLED == ["cagrad", "upgrad"]
    with pytest.raises(RecipeError, match=r"`options.tasks_per_step` is no option of 'pcgrad'"):
        check_method("pcgrad", {"tasks_per_step": 2})
    with pytest.raises(RecipeError, match=r"`tasks_per_step` must be at least 0, got -1"):
        check_method("cagrad", {"tasks_per_step": -1})
