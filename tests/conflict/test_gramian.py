"""Gramians and conflict counts against brute force: autograd per task, cosine per layer."""

import itertools

import pytest
import timm
import torch

import recon_search as rs
from recon_search.conflict.gramian import task_gradients
from tests.brute_force import brute_force_counts, task_losses

BACKBONES = {
    "resnet": lambda: timm.create_model(
        "resnet18", in_chans=1, num_classes=8, channels=[4, 4, 8, 8]
    ),
    "vit": lambda: timm.create_model(
        "vit_tiny_patch16_224",
        in_chans=1,
        num_classes=8,
        img_size=32,
        depth=3,
        embed_dim=24,
        num_heads=3,
    ),
}


@pytest.fixture(params=list(BACKBONES))
def backbone(request):
    torch.manual_seed(0)
    return BACKBONES[request.param]().double()


def test_gramians_are_inner_products_of_task_gradients(backbone):
    losses = task_losses(backbone, n_tasks=3, seed=0)
    layers = rs.layers(backbone)
    found = rs.gramians(losses, layers)
    assert found.shape == (len(layers), 3, 3)
    for index, parameters in enumerate(layers.values()):
        rows = [
            torch.cat(
                [g.flatten() for g in torch.autograd.grad(loss, parameters, retain_graph=True)]
            )
            for loss in losses
        ]
        jacobian = torch.stack(rows)
        torch.testing.assert_close(found[index], jacobian @ jacobian.T, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("threshold", [0.0, -0.01, -0.05, -0.1, -0.37])
def test_counts_equal_brute_force(backbone, threshold):
    layers = rs.layers(backbone)
    scores = rs.ConflictScores(list(layers), ["a", "b", "c"])
    steps = [task_losses(backbone, n_tasks=3, seed=seed) for seed in range(6)]
    for losses in steps:
        scores.update(rs.gramians(losses, layers))
    expected = brute_force_counts(steps, layers, threshold)
    assert expected.sum() > 0
    assert torch.equal(scores.counts(threshold), expected)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # attention is not vectorised
def test_batched_gradients_equal_sequential_ones(backbone):
    losses = task_losses(backbone, n_tasks=3, seed=0)
    every = list(backbone.parameters())
    wanted = [every, every[3:], every[:-2]]  # tasks need not use the same parameters
    sequential = task_gradients(losses, wanted, retain_graph=True)
    for one, other in zip(sequential, task_gradients(losses, wanted, batched=True), strict=True):
        assert set(one) == set(other)
        for parameter, gradient in one.items():
            torch.testing.assert_close(other[parameter], gradient, rtol=1e-9, atol=1e-12)


def test_a_layer_that_a_loss_does_not_reach_has_zero_rows():
    used, unused = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    x = torch.ones(1, 2)
    losses = [used(x).sum(), unused(x).sum()]
    found = rs.gramians(
        losses, {"used": list(used.parameters()), "unused": list(unused.parameters())}
    )
    for (layer, row), column in itertools.product(enumerate((1, 0)), range(2)):
        assert found[layer, row, column] == 0
    assert found[0, 0, 0] == pytest.approx(6)  # 2 outputs x (2 weights + 1 bias), gradient 1 each


def test_layers_that_no_loss_reaches_have_zeros_of_the_parameters_type():
    """All layers, or one copy of a layer, as when a task with private copies is absent."""
    used, unused = torch.nn.Linear(2, 2).double(), torch.nn.Linear(2, 2).double()
    loss = used(torch.ones(1, 2, dtype=torch.float64)).sum()
    both = [*used.parameters(), *unused.parameters()]
    found = rs.gramians([loss], {"split": both, "unused": list(unused.parameters())})
    assert found.tolist() == [[[6.0]], [[0.0]]]
    alone = rs.gramians([loss], {"unused": list(unused.parameters())})
    assert (alone.dtype, alone.tolist()) == (torch.float64, [[[0.0]]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_squares_of_half_precision_do_not_overflow(dtype):
    weight = torch.nn.Parameter(torch.ones(4, dtype=dtype))
    losses = [(300.0 * weight).sum(), (-200.0 * weight).sum()]
    found = rs.gramians(losses, {"layer": [weight]})
    assert found.dtype == torch.float32
    assert found[0].tolist() == [[360_000, -240_000], [-240_000, 160_000]]
