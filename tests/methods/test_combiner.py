"""What the combiner writes into `.grad`, against plain autograd and PCGrad's Algorithm 1."""

import pytest
import torch
from torch import nn

import recon_search as rs
from recon_search.conflict.sketch import Sketch
from recon_search.errors import RecipeError
from recon_search.methods.surgeon import create_surgeon
from recon_search.model.network import MultiTaskModel
from tests.memory import PeakMemory
from tests.methods.gradients import SPLIT, forward, gradients_of, losses_of, task_gradients


def pcgrad(vectors):
    """Algorithm 1 of arXiv 2001.06782; torch's global generator gives the order of projections."""
    total = torch.zeros_like(vectors[0])
    for i, vector in enumerate(vectors):
        projected = vector.clone()
        for j in torch.randperm(len(vectors)).tolist():
            if j != i:
                inner = projected @ vectors[j]
                if inner < 0:
                    projected = projected - inner / (vectors[j] @ vectors[j]) * vectors[j]
        total += projected
    return total


@pytest.mark.parametrize("method", ["joint", "pcgrad"])
@pytest.mark.parametrize("n_tasks", [2, 3])
def test_private_parameters_get_their_own_tasks_gradient(make_model, method, n_tasks):
    model = make_model(SPLIT, n_tasks)
    losses = losses_of(model)
    rows = task_gradients(model, losses)
    create_surgeon(model, method).backward(losses)
    n_private = 0
    for name, parameter in model.named_parameters():
        users = [row[name] for row in rows if row[name].any()]
        if len(users) == 1:
            n_private += 1
            torch.testing.assert_close(parameter.grad, users[0], rtol=1e-12, atol=1e-14)
    assert n_private >= n_tasks * (2 + 1 + 2 + 2)  # heads, conv, norm, fc


@pytest.mark.parametrize("n_tasks", [2, 3])
@pytest.mark.parametrize("measure", [False, True])
def test_joint_is_the_sum(make_model, n_tasks, measure):
    model = make_model(SPLIT, n_tasks)
    losses = losses_of(model)
    rows = task_gradients(model, losses)
    create_surgeon(model, "joint").backward(losses, measure=measure)
    for name, parameter in model.named_parameters():
        expected = sum(row[name] for row in rows)
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("n_tasks", [2, 3])
@pytest.mark.parametrize("split", [[], SPLIT])
def test_pcgrad_equals_algorithm_1_on_the_shared_parameters(make_model, n_tasks, split):
    model = make_model(split, n_tasks)
    shared = [
        parameter
        for blocks in model.backbone.layers().values()
        if len(blocks) == 1
        for parameter in blocks[0].parameters
    ]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    n_conflicts = 0
    for seed in range(8):
        losses = losses_of(model, seed)
        rows = task_gradients(model, losses)
        vectors = [torch.cat([row[names[id(p)]].flatten() for p in shared]) for row in rows]
        n_conflicts += sum(bool(a @ b < 0) for a in vectors for b in vectors)
        torch.manual_seed(seed)
        expected = pcgrad(vectors)
        torch.manual_seed(seed)
        model.zero_grad()
        create_surgeon(model, "pcgrad").backward(losses)
        found = torch.cat([parameter.grad.flatten() for parameter in shared])
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-13)
    assert n_conflicts > 0


def test_what_a_group_shares_is_combined_among_that_group(make_model):
    model = make_model(["layer3.0.conv1"], 3, groups=(("a", "b"), ("c",)))
    losses = losses_of(model)
    rows = task_gradients(model, losses)
    block = model.backbone.layers()["layer3.0.conv1"][0]
    assert block.tasks == ("a", "b")
    shared = [
        p
        for blocks in model.backbone.layers().values()
        for b in blocks
        if b.tasks == ("a", "b")
        for p in b.parameters
    ]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    vectors = [torch.cat([rows[task][names[id(p)]].flatten() for p in shared]) for task in (0, 1)]
    create_surgeon(model, "pcgrad").backward(losses)
    found = torch.cat([parameter.grad.flatten() for parameter in shared])
    torch.testing.assert_close(found, pcgrad(vectors), rtol=1e-9, atol=1e-13)
    assert any(parameter is block.parameters[0] for parameter in shared)


def test_measured_gramians_of_a_split_layer_have_no_inner_product(make_model):
    model = make_model(SPLIT, 3)
    gramians = create_surgeon(model, "joint").backward(losses_of(model), measure=True)
    layers = list(model.backbone.layers())
    for index, layer in enumerate(layers):
        off_diagonal = gramians[index] - torch.diag(gramians[index].diagonal())
        assert bool(off_diagonal.any()) == (layer not in SPLIT)
        assert (gramians[index].diagonal() > 0).all()


def test_unknown_method(make_model):
    with pytest.raises(RecipeError, match="Did you mean 'pcgrad'"):
        create_surgeon(make_model(), "pc-grad")


@pytest.mark.parametrize("split", [[], SPLIT], ids=["unsplit", "split"])
@pytest.mark.parametrize("method", ["joint", "uw", "pcgrad", "rotograd"])
def test_low_memory_changes_nothing_that_is_measured_or_trained(make_model, method, split):
    found = []
    for low_memory in (False, True):
        model = make_model(split, 3, groups=(("a", "b"), ("c",)))
        surgeon = create_surgeon(model, method, low_memory=low_memory)
        losses, features = forward(model)
        losses.pop("b")  # an absent task has zero rows
        torch.manual_seed(0)
        surgeon.accumulate(losses, features, measure=True)
        gramians = surgeon.combine(measure=True)
        assert surgeon.combine(measure=False) is None  # nothing is left over
        found.append((gramians, gradients_of(model)))
    (gramians, gradients), (low_gramians, low_gradients) = found
    torch.testing.assert_close(low_gramians, gramians, rtol=1e-9, atol=1e-12)
    assert set(low_gradients) == set(gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(low_gradients[name], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("split", [[], SPLIT], ids=["unsplit", "split"])
@pytest.mark.parametrize("method", ["joint", "uw", "pcgrad", "rotograd"])
def test_a_sketch_trains_the_same_and_measures_unbiased(make_model, method, split, low_memory):
    """Of several batches, one task absent, another in a group; and what it fits into is exact."""
    found = {}
    for size in (None, 16, 10**6):
        sketch = None if size is None else Sketch(size)
        model = make_model(split, 3, groups=(("a", "b"), ("c",)))
        surgeon = create_surgeon(
            model, method, low_memory=low_memory and sketch is not None, sketch=sketch
        )
        torch.manual_seed(0)
        for seed in (0, 1):
            losses, features = forward(model, seed=seed)
            losses.pop("b")
            surgeon.accumulate(losses, features, share=0.5, measure=("a", "c"))
        gramians = surgeon.combine(measure=True)
        assert surgeon.combine(measure=False) is None  # nothing is left over
        found[size] = gramians, gradients_of(model)
    exact, expected = found[None]
    for size in (16, 10**6):
        assert set(found[size][1]) == set(expected)
        for name, gradient in expected.items():
            torch.testing.assert_close(found[size][1][name], gradient, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found[10**6][0], exact, rtol=1e-9, atol=1e-12)
    estimate = found[16][0]
    assert torch.equal(estimate != 0, exact != 0)
    squares = exact.diagonal(dim1=1, dim2=2)
    stated = ((squares[:, :, None] * squares[:, None] + exact**2) / 16).sqrt()
    assert ((estimate - exact).abs() <= 5 * stated).all()
    assert torch.equal(estimate, exact) == (method == "pcgrad")  # which keeps gradients anyhow


@pytest.mark.parametrize("method", ["joint", "pcgrad"])
@pytest.mark.parametrize("n_tasks", [2, 3])
def test_a_measured_step_keeps_one_set_of_gradients_a_task(make_model, method, n_tasks):
    """And `.grad` itself; images are so small that activations hardly count."""
    model = make_model([], n_tasks)
    combiner = create_surgeon(model, method)
    losses = forward(model, size=2, side=4)[0]
    with PeakMemory() as memory:
        combiner.backward(losses, measure=True)
    one_set = sum(8 * parameter.numel() for parameter in model.backbone.parameters())
    assert n_tasks * one_set < memory.peak < (n_tasks + 1.3) * one_set


@pytest.mark.parametrize("n_tasks", [2, 12])
def test_a_sketched_step_keeps_one_set_of_gradients_in_all(n_tasks):
    """That is `.grad`; beside it a layer at a time, and a few numbers a task."""
    tasks = tuple(map(str, range(n_tasks)))
    backbone = nn.Sequential(*(nn.Linear(256, 256) for _ in range(16)))
    branched = rs.branch(backbone, rs.Split(tasks, {}), example=torch.randn(2, 256))
    model = MultiTaskModel(branched, {task: nn.Linear(256, 1) for task in tasks}, {})
    surgeon = create_surgeon(model, "joint", sketch=Sketch(16))
    features = model.backbone(torch.randn(2, 256))
    losses = {task: model.heads[task](features[task]).sum() for task in tasks}
    with PeakMemory() as memory:
        surgeon.backward(losses, measure=True)
    one_set = sum(4 * parameter.numel() for parameter in model.backbone.parameters())
    assert one_set < memory.peak < 1.5 * one_set
