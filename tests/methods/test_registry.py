"""Every method of the registry: options, witnesses from TorchJD, state, a few steps of training."""

import pytest
import torch
from torchjd import aggregation, scalarization

from recon_search.errors import RecipeError
from recon_search.methods.method import Method
from recon_search.methods.registry import METHODS, check_method
from recon_search.methods.surgeon import create_surgeon
from recon_search.training.checkpoint import load_checkpoint, save_checkpoint
from tests.methods.gradients import (
    SPLIT,
    flat,
    forward,
    gradients_of,
    losses_of,
    shared_names,
    task_gradients,
)

TASKS = ("a", "b", "c")

AGGREGATORS = {
    "mean": aggregation.Mean,
    "random": aggregation.Random,
    "pcgrad": aggregation.PCGrad,
    "gradvac": aggregation.GradVac,
    "mgda": aggregation.MGDA,
    "cagrad": lambda: aggregation.CAGrad(c=0.5),
    "nash-mtl": lambda: aggregation.NashMTL(n_tasks=3),
    "imtl-g": aggregation.IMTLG,
    "aligned-mtl": aggregation.AlignedMTL,
    "fairgrad": lambda: aggregation.FairGrad(alpha=2.0),
    "upgrad": aggregation.UPGrad,
    "dualproj": aggregation.DualProj,
    "pcd": aggregation.PCD,
    "cr-mogm": lambda: aggregation.GramianWeightedAggregator(
        aggregation.CRMOGMWeighting(aggregation.MGDAWeighting(), alpha=0.9)
    ),
    "krum": lambda: aggregation.Krum(n_byzantine=0),
    "graddrop": aggregation.GradDrop,
    "config": aggregation.ConFIG,
    "excess-mtl": aggregation.ExcessMTL,
    "trimmed-mean": lambda: aggregation.TrimmedMean(trim_number=1),
}
BY_SOLVER = {"cagrad", "nash-mtl", "fairgrad"}
SCALARISERS = {
    "uw": lambda: scalarization.UW(3),
    "imtl-l": lambda: scalarization.IMTLL(3),
    "dwa": scalarization.DWA,
    "famo": lambda: scalarization.FAMO(3),
    "gls": scalarization.GeometricMean,
    "stch": lambda: scalarization.STCH(mu=0.1),
    "rlw": scalarization.Random,
    "constant": lambda: scalarization.Constant(torch.ones(3)),
}


def test_there_is_a_witness_for_every_method():
    by_needs = {needs: set() for needs in ("losses", "Gramian", "gradients")}
    for method in METHODS.values():
        by_needs.setdefault(method.needs, set()).add(method.name)
    assert by_needs["Gramian"] | by_needs["gradients"] == set(AGGREGATORS)
    assert by_needs["losses"] == set(SCALARISERS)


def test_torchjd_has_no_gramian_weighting_that_is_left_out():
    known = {"PCGrad", "GradVac", "MGDA", "CAGrad", "IMTLG", "AlignedMTL", "FairGrad", "UPGrad"}
    known |= {"DualProj", "PCD", "CRMOGM", "Krum", "Mean", "Random", "ExcessMTL"}
    known |= {"Constant", "Sum"}  # `constant` and `joint`
    known |= {"MoDo", "SDMGrad"}  # not on Gramians
    offered = {
        name.removesuffix("Weighting") for name in aggregation.__all__ if "Weighting" in name
    }
    assert offered - {""} == known


@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem")
@pytest.mark.parametrize("split", [[], SPLIT], ids=["unsplit", "split"])
@pytest.mark.parametrize("method", AGGREGATORS)
def test_shared_parameters_get_what_torchjd_makes_of_their_jacobian(make_model, method, split):
    model = make_model(split, 3)
    names = shared_names(model)
    combiner, aggregator = create_surgeon(model, method), AGGREGATORS[method]()
    # Both lay out the Jacobian in the same order: methods that draw signs draw the same ones.
    for seed in range(3):
        losses = losses_of(model, seed)
        rows = task_gradients(model, losses)
        torch.manual_seed(seed)
        expected = aggregator(torch.stack([flat(row, names) for row in rows]))
        torch.manual_seed(seed)
        model.zero_grad()
        combiner.backward(losses)
        tolerance = 1e-5 if method in BY_SOLVER else 1e-8
        scale = float(expected.abs().max())
        found = gradients_of(model)
        torch.testing.assert_close(
            flat(found, names), expected, rtol=tolerance, atol=tolerance * scale
        )
        for name, gradient in found.items():
            users = [row[name] for row in rows if row[name].any()]
            if len(users) == 1 and name not in names:
                torch.testing.assert_close(gradient, users[0])


@pytest.mark.parametrize("method", SCALARISERS)
def test_scalarisers_give_the_gradient_of_torchjds_value(make_model, method):
    model = make_model(SPLIT, 3)
    combiner, scalariser = create_surgeon(model, method), SCALARISERS[method]()
    for seed in range(3):
        losses = losses_of(model, seed)
        torch.manual_seed(seed)
        loss = scalariser(torch.stack(list(losses.values())))
        loss.backward(retain_graph=True)
        expected = gradients_of(model)
        own = [p.grad.clone() for p in scalariser.parameters() if p.grad is not None]
        torch.manual_seed(seed)
        model.zero_grad()
        combiner.backward(losses)
        for name, gradient in gradients_of(model).items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-6, atol=1e-9)
        learned = [p.grad for p in combiner.parameters() if p.grad is not None]
        assert len(learned) == len(own)
        for mine, theirs in zip(learned, own, strict=True):
            torch.testing.assert_close(mine, theirs)
        for parameter in (*scalariser.parameters(), *combiner.parameters()):
            parameter.grad = None
        model.zero_grad()


def train(model, surgeon, seeds):
    """Plain SGD for as many steps as there are seeds; the losses of the last."""
    parameters = [*model.parameters(), *surgeon.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.01)
    for seed in seeds:
        torch.manual_seed(seed)
        losses, features = forward(model, seed)
        optimizer.zero_grad()
        surgeon.accumulate(losses, features)
        surgeon.combine()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        surgeon.step(lambda seed=seed: forward(model, seed))
        surgeon.end_epoch()
    return losses


@pytest.mark.parametrize("split", [[], SPLIT], ids=["unsplit", "split"])
@pytest.mark.parametrize("method", METHODS)
def test_a_few_steps_leave_every_parameter_finite_and_most_of_them_moved(make_model, method, split):
    model = make_model(split, 3)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    losses = train(model, create_surgeon(model, method), range(3))
    assert all(loss.isfinite() for loss in losses.values())
    moved = {
        name.replace("head.", "") for name, p in model.named_parameters() if p.isfinite().all()
    }
    assert moved == set(before)
    now = {name.replace(".head.", "."): p for name, p in model.named_parameters()}
    assert sum(not torch.equal(now[name], before[name]) for name in before) > 0.9 * len(before)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_goes_on_from_a_checkpoint_as_if_nothing_had_happened(
    make_model, method, tmp_path
):
    groups = None if method in ("krum", "trimmed-mean") else (("a", "b"), ("c",))
    whole = make_model(["layer3.0.conv1"], 3, groups=groups)
    surgeon = create_surgeon(whole, method)
    train(whole, surgeon, range(3))
    state = {"model": whole.state_dict(), "method": surgeon.state_dict()}
    save_checkpoint(tmp_path / "checkpoint.safetensors", state)
    train(whole, surgeon, range(3, 6))

    resumed = make_model(["layer3.0.conv1"], 3, groups=groups)
    surgeon = create_surgeon(resumed, method)
    state = load_checkpoint(tmp_path / "checkpoint.safetensors")
    resumed.load_state_dict(state["model"])
    surgeon.load_state_dict(state["method"])
    train(resumed, surgeon, range(3, 6))
    for mine, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("where", ["options", "train.options"])
def test_unknown_options_name_near_ones_and_every_problem_is_listed(where):
    with pytest.raises(RecipeError, match=rf"`{where}.bata` .* Did you mean 'beta'\?") as info:
        check_method("gradvac", {"bata": 0.1, "eps": "small"}, where=where)
    assert f"`{where}.eps` must be a float, got 'small'" in str(info.value)
    check_method("gradvac", {"beta": 1})  # whole numbers pass for floats
    with pytest.raises(RecipeError, match="it has: none"):
        check_method("pcgrad", {"c": 0.5})


def test_options_out_of_range_and_too_few_tasks(make_model):
    with pytest.raises(RecipeError, match=r"must fit method 'cagrad' .* c must be non-negative"):
        create_surgeon(make_model(), "cagrad", {"c": -1.0})
    with pytest.raises(RecipeError, match=r"at least 3 tasks must share parameters, found 2: a, b"):
        create_surgeon(make_model(), "krum")
    with pytest.raises(RecipeError, match=r"names of tasks, got 'bb'.*Did you mean 'b'"):
        create_surgeon(make_model(), "constant", {"weights": {"bb": 2.0}})
    with pytest.raises(RecipeError, match=r"another Gramian method, got 'joint'"):
        create_surgeon(make_model(), "cr-mogm", {"weighting": "joint"})


def test_a_missing_package_gives_its_pip_line():
    def factory(tasks):
        raise ImportError("needs a solver")

    method = Method("solver", "Gramian", "", "", factory, install="torchjd[cagrad]")
    with pytest.raises(RecipeError, match=r"Run: pip install 'torchjd\[cagrad\]'"):
        method.create(TASKS, options={})


def test_fixed_weights_by_task(make_model):
    model = make_model(SPLIT, 3)
    losses = losses_of(model)
    rows = task_gradients(model, losses)
    create_surgeon(model, "constant", {"weights": {"a": 2, "c": 0.5}}).backward(losses)
    for name, gradient in gradients_of(model).items():
        expected = 2 * rows[0][name] + rows[1][name] + 0.5 * rows[2][name]
        torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-12)
