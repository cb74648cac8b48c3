"""The public surgeon in a loop of one's own: every method, losses that do not fit, overflows."""

import copy

import pytest
import torch
from torch import nn

import recon_search as rs
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import RecipeError, TrainingError
from recon_search.methods.combiner import GradientCombiner
from recon_search.methods.registry import METHODS, check_method
from recon_search.methods.skipping import PATIENCE
from tests.methods.small import TASKS, gradients_of, losses_of, make_small

NEEDS_THREE = ("krum", "trimmed-mean")
LEARNS_FROM_ALL = ["mean", "pcgrad", "mgda", "graddrop", "config"]


def make(method, split=True):
    """Build a model that the method can train; some need three tasks in every set."""
    return make_small(split and method not in NEEDS_THREE)


def count_passes(monkeypatch):
    """Count calls of the autograd engine."""
    calls = []
    engine = torch.autograd.graph._engine_run_backward

    def run(*args, **kwargs):
        calls.append(1)
        return engine(*args, **kwargs)

    monkeypatch.setattr("torch.autograd._engine_run_backward", run)
    return calls


# backward


@pytest.mark.parametrize("split", [False, True], ids=["unsplit", "split"])
@pytest.mark.parametrize("method", METHODS)
def test_backward_is_accumulate_and_combine(method, split):
    """Over a few steps, so that states must go on alike, with and without measuring."""
    models = [make(method, split), make(method, split)]
    surgeons = [rs.create_surgeon(model, method) for model in models]
    learned = [[*m.parameters(), *s.parameters()] for m, s in zip(models, surgeons, strict=True)]
    optimizers = [torch.optim.SGD(parameters, lr=0.01) for parameters in learned]
    for seed in range(4):
        measure = seed % 2 == 1
        measured = []
        for model, surgeon, optimizer in zip(models, surgeons, optimizers, strict=True):
            torch.manual_seed(seed)
            optimizer.zero_grad()
            losses = losses_of(model, seed)
            if surgeon is surgeons[0]:
                measured.append(surgeon.backward(losses, measure=measure))
            else:
                read = dict(surgeon.readings.kept) if METHODS[method].needs == "features" else None
                features = None if read is None else {t: r[0] for t, r in read.items()}
                surgeon.accumulate(losses, features, measure=measure)
                measured.append(surgeon.combine(measure=measure))
            optimizer.step()
            surgeon.step(lambda model=model, seed=seed: (losses_of(model, seed), None))
        first, second = measured
        assert (first is None) == (second is None) == (not measure)
        if measure:
            assert first.shape == (3, 3, 3)
            assert torch.equal(first, second)
        for mine, theirs in zip(*learned, strict=True):
            assert torch.equal(mine, theirs)
            assert mine.grad is None or torch.equal(mine.grad, theirs.grad)


@pytest.mark.parametrize("method", METHODS)
def test_the_example_for_a_loop_of_ones_own(method):
    model = make(method)
    surgeon = rs.create_surgeon(model, method)
    optimizer = torch.optim.SGD([*model.parameters(), *surgeon.parameters()], lr=0.01)
    scores = rs.ConflictScores(list(model.backbone.layers()), model.tasks)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for seed in range(3):
        optimizer.zero_grad()
        scores.update(surgeon.backward(losses_of(model, seed), measure=True))
        optimizer.step()
        surgeon.step()
    surgeon.finish(model)
    assert scores.steps == 3
    assert sum(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)) > 10
    assert all(loss.isfinite() for loss in losses_of(model).values())


def test_create_surgeon_is_public_and_takes_what_a_combiner_refuses():
    assert "create_surgeon" in rs.__all__
    for method in ("rotograd", "rotate-only", "joint", "uw"):
        with pytest.raises(RecipeError, match=rf"got '{method}', .* Use create_surgeon"):
            GradientCombiner(make_small(), method)
    with pytest.raises(RecipeError, match="Did you mean 'pcgrad'"):
        rs.create_surgeon(make_small(), "pc-grad")


@pytest.mark.parametrize("method", ["joint", "uw", "pcgrad", "rotate-only"])
def test_a_step_costs_no_backward_pass_more_than_it_must(method, monkeypatch):
    """Of RotoGrad the heads' passes come on top, and of scalarisers that of their weights."""
    extra = {"uw": 1, "rotate-only": 3}.get(method, 0)
    surgeon = rs.create_surgeon(model := make_small(), method)
    calls = count_passes(monkeypatch)
    for measure, least in ((False, 1), (True, 3), (("b",), 2), (("a", "c"), 3), ((), 1)):
        calls.clear()
        surgeon.backward(losses_of(model), measure=measure)
        assert len(calls) == extra + (3 if method == "pcgrad" else least)


# Losses


@pytest.mark.parametrize("method", METHODS)
def test_none_is_an_absent_task(method):
    if method in NEEDS_THREE:
        pytest.skip("needs three tasks")
    found = []
    for losses_with in (lambda losses: {**losses, "b": None}, lambda losses: without(losses, "b")):
        surgeon = rs.create_surgeon(model := make_small(), method)
        torch.manual_seed(0)
        surgeon.backward(losses_with(losses_of(model)), measure=True)
        found.append(gradients_of(model))
    assert not any(name.startswith("heads.b.") for name in found[0])
    assert set(found[0]) == set(found[1])
    assert all(torch.equal(gradient, found[1][name]) for name, gradient in found[0].items())


def without(losses, task):
    return {name: loss for name, loss in losses.items() if name != task}


@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("losses", [{}, dict.fromkeys(TASKS)])
@pytest.mark.parametrize("method", ["joint", "uw", "pcgrad", "graddrop", "rotograd"])
def test_a_step_without_any_loss_measures_nothing_and_trains_nothing(method, losses, low_memory):
    surgeon = rs.create_surgeon(model := make_small(), method, low_memory=low_memory)
    assert surgeon.backward(losses, measure=True) is None
    assert not gradients_of(model)
    assert surgeon.backward(losses_of(model), measure=True).shape == (3, 3, 3)


def alone(loss):
    """The number of a loss, that nothing led to."""
    return loss.detach()


BAD = {
    "misspelt": (lambda x: {**without(x, "b"), "bb": x["b"]}, r"got 'bb'\. Did you mean 'b'\?"),
    "unknown": (lambda x: {**x, "depth": x["b"]}, r"named after the tasks .*got 'depth'"),
    "not a name": (lambda x: {**x, 3: x["b"]}, r"named after the tasks .*got 3\."),
    "a vector": (lambda x: {**x, "b": x["b"].expand(4)}, r"task 'b' must be a scalar .*\(4,\)"),
    "empty": (lambda x: {**x, "b": x["b"].expand(0)}, r"task 'b' must be a scalar .*\(0,\)"),
    "a number": (lambda x: {**x, "b": 0.5}, r"task 'b' must be a scalar tensor, got 0.5"),
    "detached": (lambda x: {**x, "b": alone(x["b"])}, r"task 'b' must depend on the model"),
    "whole": (lambda x: {**x, "b": torch.tensor(1)}, r"task 'b' must depend on the model"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("method", ["joint", "dwa", "pcgrad", "graddrop", "rotograd"])
def test_losses_that_do_not_fit_are_refused_before_anything_happens(method, kind):
    change, message = BAD[kind]
    surgeon = rs.create_surgeon(model := make_small(), method)
    before = copy.deepcopy(surgeon.state_dict())
    with pytest.raises(TrainingError, match=message) as info:
        surgeon.backward(change(losses_of(model)), measure=True)
    assert "\n" not in str(info.value)
    assert not gradients_of(model)
    assert str(surgeon.state_dict()) == str(before)


@pytest.mark.parametrize("method", ["joint", "pcgrad", "rotograd"])
def test_losses_of_one_element_are_scalars(method):
    found = []
    for shape in ((), (1,), (1, 1)):
        surgeon = rs.create_surgeon(model := make_small(), method)
        losses = {task: loss.reshape(shape) for task, loss in losses_of(model).items()}
        torch.manual_seed(0)
        surgeon.backward(losses)
        found.append(gradients_of(model))
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name])
        assert torch.equal(gradient, found[2][name])


@pytest.mark.parametrize("measure", [False, True])
@pytest.mark.parametrize("method", ["joint", "uw", "pcgrad", "graddrop", "rotograd"])
def test_a_task_with_nothing_to_train_may_have_a_loss_without_a_graph(method, measure):
    model = make_small()
    model.backbone.requires_grad_(False)
    model.heads["b"].requires_grad_(False)
    surgeon = rs.create_surgeon(model, method)
    losses = losses_of(model)
    assert not losses["b"].requires_grad
    surgeon.backward(losses, measure=measure)
    assert {name.split(".")[1] for name in gradients_of(model)} == {"a", "c"}


@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("method", ["joint", "pcgrad", "graddrop"])
def test_a_loss_that_does_not_reach_the_network_changes_nothing(method, low_memory):
    found = []
    elsewhere = nn.Parameter(torch.ones((), dtype=torch.float64))
    for extra in ({}, {"b": elsewhere * 2}, {"b": elsewhere}):
        surgeon = rs.create_surgeon(model := make_small(), method, low_memory=low_memory)
        torch.manual_seed(0)
        surgeon.backward({**without(losses_of(model), "b"), **extra}, measure=True)
        found.append(gradients_of(model))
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name])
        assert torch.equal(gradient, found[2][name])


# Which tasks are measured


@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("measured", [("a",), ("c", "a"), {"b", "c"}, TASKS, ["b"]])
@pytest.mark.parametrize("method", ["joint", "uw", "dwa", "rotate-only"])
def test_a_step_that_measures_some_tasks_trains_all(method, measured, low_memory):
    whole = rs.create_surgeon(model := make_small(), method)
    every = whole.backward(losses_of(model), measure=True)
    expected = gradients_of(model)
    surgeon = rs.create_surgeon(model := make_small(), method, low_memory=low_memory)
    some = surgeon.backward(losses_of(model), measure=measured)
    mask = torch.tensor([task in measured for task in TASKS])
    torch.testing.assert_close(some, every * (mask[:, None] & mask))
    for name, gradient in gradients_of(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)


def test_several_batches_of_which_some_tasks_are_measured():
    surgeon = rs.create_surgeon(model := make_small(), "joint")
    sum(sum(losses_of(model, seed).values()) / 2 for seed in (0, 1)).backward()
    expected = gradients_of(model)
    model.zero_grad()
    whole = surgeon.accumulate(losses_of(model, 0), share=0.5, measure=True)
    surgeon.accumulate(losses_of(model, 1), share=0.5, measure=True)
    whole = surgeon.combine(measure=True)
    model.zero_grad()
    for seed in (0, 1):
        surgeon.accumulate(losses_of(model, seed), share=0.5, measure=("a", "b"))
    some = surgeon.combine(measure=("a", "b"))
    torch.testing.assert_close(some[:, :2, :2], whole[:, :2, :2])
    assert not some[:, 2].any()
    for name, gradient in gradients_of(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", LEARNS_FROM_ALL)
def test_methods_that_need_every_gradient_measure_every_task(method):
    surgeon = rs.create_surgeon(model := make_small(), method)
    gramians = surgeon.backward(losses_of(model), measure=("a",))
    joint = rs.create_surgeon(model := make_small(), "joint")
    torch.testing.assert_close(gramians, joint.backward(losses_of(model), measure=True))


def test_what_is_measured_of_absent_tasks_is_nothing():
    surgeon = rs.create_surgeon(model := make_small(), "joint")
    losses = without(losses_of(model), "a")
    assert surgeon.backward(losses, measure=("a",)) is None
    model.zero_grad()
    gramians = surgeon.backward(without(losses_of(model), "a"), measure=("a", "b"))
    assert not gramians[:, 0].any()
    assert (gramians[:, 1, 1] > 0).all()


def test_the_tasks_to_measure_have_names():
    surgeon = rs.create_surgeon(model := make_small(), "joint")
    with pytest.raises(TrainingError, match=r"must be of \['a', 'b', 'c'\], got 'aa'.* 'a'"):
        surgeon.backward(losses_of(model), measure=("aa",))
    assert not gradients_of(model)


@pytest.mark.parametrize("method", ["joint", "uw", "rotograd"])
def test_a_step_measured_in_low_memory_is_of_one_batch(method):
    surgeon = rs.create_surgeon(model := make_small(), method, low_memory=True)
    surgeon.accumulate(losses_of(model), share=0.5, measure=True)
    with pytest.raises(TrainingError, match="measured in low memory must be of one batch"):
        surgeon.accumulate(losses_of(model), share=0.5, measure=True)


# Overflows


SCALED = [
    method
    for method in METHODS
    if METHODS[method].needs != "losses" or method in ("rlw", "constant")  # blind to values
    if method != "nash-mtl"  # whose solver is none for gradients of any size
]


@pytest.mark.parametrize("method", SCALED)
def test_a_scaler_skips_the_steps_that_overflow_and_training_goes_on(method):
    """Single precision ends at 2^128, so the scaler must come down, and for the squares again."""
    model = make(method).float()
    surgeon = rs.create_surgeon(model, method)
    scores = ConflictScores(list(model.backbone.layers()), model.tasks)
    optimizer = torch.optim.SGD([*model.parameters(), *surgeon.parameters()], lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-32)
    skipped = 0
    for seed in range(6):
        before = copy.deepcopy(model.state_dict())
        scale = scaler.get_scale()
        optimizer.zero_grad()
        losses = losses_of(model, seed)
        gramians = surgeon.backward(
            {task: scaler.scale(loss) for task, loss in losses.items()}, measure=True
        )
        finite = all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())
        scaler.step(optimizer)
        scaler.update()
        surgeon.step()
        is_skipped = scaler.get_scale() < scale
        assert is_skipped == (not finite)
        skipped += is_skipped
        weights = {k: v for k, v in model.state_dict().items() if not k.endswith("rotation")}
        assert is_skipped == all(torch.equal(v, before[k]) for k, v in weights.items())
        assert (gramians is None) == is_skipped
        if is_skipped:
            assert "Gradients must be finite for method" in surgeon.fault
            assert "train." not in surgeon.fault
        else:
            scores.update(gramians)
            assert surgeon.fault is None
    assert 1 <= skipped == surgeon.n_skipped <= 4
    assert scores.steps == 6 - skipped
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())


@pytest.mark.parametrize("method", ["joint", "pcgrad", "gradvac", "graddrop", "rotograd"])
def test_a_skipped_step_changes_no_state(method):
    model = make_small().float()
    surgeon = rs.create_surgeon(model, method, {"every": 1} if method == "rotograd" else None)
    for seed in range(2):
        surgeon.backward(losses_of(model, seed), measure=True)
        surgeon.step()
    before = str(surgeon.state_dict())
    losses = losses_of(model)
    assert surgeon.backward({**losses, "b": losses["b"] * torch.inf}, measure=True) is None
    assert surgeon.n_skipped == 1
    assert "task 'b'" in surgeon.fault
    assert str(surgeon.state_dict()) == before
    model.zero_grad()
    surgeon.backward(losses_of(model), measure=True)
    assert surgeon.fault is None


def test_half_precision_under_a_scaler_trains():
    model = make_small().float()
    surgeon = rs.create_surgeon(model, "pcgrad")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    values = []
    for _ in range(40):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            losses = losses_of(model)
        surgeon.backward({task: scaler.scale(loss) for task, loss in losses.items()})
        scaler.step(optimizer)
        scaler.update()
        values.append(sum(loss.item() for loss in losses.values()))
    assert 1 <= surgeon.n_skipped < 20
    assert values[-1] < 0.9 * values[0]


def test_steps_that_never_stop_overflowing_end_the_training():
    model = make_small()
    surgeon = rs.create_surgeon(model, "pcgrad")

    def step():
        surgeon.backward({**losses_of(model), "b": losses_of(model)["b"] * torch.inf})

    for _ in range(PATIENCE - 1):
        step()
    with pytest.raises(TrainingError, match=rf"those of task 'b' .* in {PATIENCE} steps in a row"):
        step()


EXACT = ["joint", "mean", "random", "pcgrad", "mgda", "imtl-g", "upgrad", "dualproj", "krum"]
EXACT += ["aligned-mtl", "cr-mogm", "graddrop", "config", "trimmed-mean"]
ROUNDED = {"cagrad": 1e-3, "gradvac": 1e-4, "pcd": 1e-4}


@pytest.mark.parametrize("method", [*EXACT, *ROUNDED])
def test_gradients_unscaled_are_those_of_losses_without_a_scale(method):
    """And Gramians are off by its square; a power of two rounds nothing."""
    found = []
    for scale in (1.0, 2.0**16):
        surgeon = rs.create_surgeon(model := make(method), method)
        torch.manual_seed(0)
        losses = {task: scale * loss for task, loss in losses_of(model).items()}
        gramians = surgeon.backward(losses, measure=True)
        found.append((gramians / scale**2, {n: g / scale for n, g in gradients_of(model).items()}))
    (gramians, gradients), (scaled_gramians, scaled) = found
    assert torch.equal(gramians, scaled_gramians)
    tolerance = ROUNDED.get(method, 1e-9)
    for name, gradient in gradients.items():
        torch.testing.assert_close(scaled[name], gradient, rtol=tolerance, atol=tolerance)


# Options


@pytest.mark.parametrize("method", ["krum", "trimmed-mean"])
def test_too_few_tasks_are_found_from_their_names(method):
    check_method(method)
    check_method(method, None, ("left", "right", "sum"))
    with pytest.raises(RecipeError, match=r"at least 3 tasks .* found 2: left, right"):
        check_method(method, None, ("left", "right"))
    option = "trim_number" if method == "trimmed-mean" else "n_byzantine"
    with pytest.raises(RecipeError, match=r"at least 5 tasks .* found 3: a, b, c"):
        check_method(method, {option: 2}, TASKS)
    for outer in ("rotograd", "rotate-only"):
        with pytest.raises(RecipeError, match=r"at least 3 tasks .* found 2: left, right"):
            check_method(outer, {"weighting": method}, ("left", "right"))
    check_method(method, None, ("alone",))  # a single task shares nothing


def test_options_that_name_tasks_are_checked_against_them():
    check_method("constant", {"weights": {"bb": 2.0}})
    check_method("constant", {"weights": {"b": 2.0}}, ("a", "b"))
    with pytest.raises(RecipeError, match=r"names of tasks, got 'bb'.* 'b'"):
        check_method("constant", {"weights": {"bb": 2.0}}, ("a", "b"))
    with pytest.raises(RecipeError, match=r"`options.weighting` of 'rotograd' must be 'joint' or"):
        check_method("rotograd", {"weighting": "uw"})
