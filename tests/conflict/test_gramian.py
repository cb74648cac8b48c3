"""Gramians and conflict counts against brute force: autograd per task, cosine per layer."""

import itertools

import pytest
import timm
import torch

import recon_search as rs
from recon_search.conflict.gramian import FEW_TASKS, PIECE, task_gradients
from recon_search.errors import RecipeError
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
    layers = {"split": both, "unused": list(unused.parameters())}
    found = rs.gramians([loss], layers, allow_unused=True)
    assert found.tolist() == [[[6.0]], [[0.0]]]
    alone = rs.gramians([loss], {"unused": list(unused.parameters())}, allow_unused=True)
    assert (alone.dtype, alone.tolist()) == (torch.float64, [[[0.0]]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_squares_of_half_precision_do_not_overflow(dtype):
    weight = torch.nn.Parameter(torch.ones(4, dtype=dtype))
    losses = [(300.0 * weight).sum(), (-200.0 * weight).sum()]
    found = rs.gramians(losses, {"layer": [weight]})
    assert found.dtype == torch.float32
    assert found[0].tolist() == [[360_000, -240_000], [-240_000, 160_000]]


@pytest.mark.parametrize("n_tasks", [2, FEW_TASKS, FEW_TASKS + 1, 40])
@pytest.mark.parametrize("sizes", [(3,), (5, 2), (2 * PIECE + 7, 5)], ids=str)
def test_many_tasks_have_the_inner_products_of_few(n_tasks, sizes):
    """Above a few tasks the products are taken at once, of large layers in pieces."""
    generator = torch.Generator().manual_seed(n_tasks)
    weights = [torch.nn.Parameter(torch.zeros(size, dtype=torch.float64)) for size in sizes]
    rows = [
        [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]
        for _ in range(n_tasks)
    ]
    losses = [sum(w @ part for w, part in zip(weights, row, strict=True)) for row in rows]
    found = rs.gramians(losses, {"layer": weights})[0]
    jacobian = torch.stack([torch.cat(row) for row in rows])
    torch.testing.assert_close(found, jacobian @ jacobian.T, rtol=1e-12, atol=1e-9)


def trunk(n_tasks=3):
    """Two layers, and a loss a task."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    outputs = network(torch.randn(6, 4))
    losses = [outputs[:, task].square().mean() for task in range(n_tasks)]
    return network, outputs, losses, rs.layers(network)


@pytest.mark.parametrize(
    "form",
    [tuple, iter, torch.stack, lambda losses: dict(zip("cab", losses, strict=True))],
    ids=["tuple", "generator", "tensor", "mapping"],
)
def test_losses_may_come_in_any_collection_in_its_order(form):
    _, _, losses, layers = trunk()
    assert torch.equal(rs.gramians(form(losses), layers), rs.gramians(losses, layers))


@pytest.mark.parametrize("absent", [[1], [0, 2], [0, 1, 2]], ids=str)
def test_an_absent_task_has_a_zero_row(absent):
    _, _, losses, layers = trunk()
    expected = rs.gramians(losses, layers)
    expected[:, absent] = 0
    expected[:, :, absent] = 0
    given = {str(t): None if t in absent else loss for t, loss in enumerate(losses)}
    assert torch.equal(rs.gramians(given, layers), expected)
    assert torch.equal(rs.gramians(given.values(), layers), expected)


def branched(backbone):
    torch.manual_seed(1)
    layer = "layer2.0.bn2"
    network = rs.branch(backbone, rs.Split.private([layer], ["a", "b"]))
    features = network(torch.randn(4, 1, 32, 32))
    return layer, network, [features[task].square().mean() for task in ("a", "b")]


def test_layers_may_be_the_copies_of_a_split_network():
    backbone = BACKBONES["resnet"]()
    split, network, losses = branched(backbone)
    copies = network.layers()
    found = rs.gramians(losses, copies)
    flat = {name: [p for copy in layer for p in copy.parameters] for name, layer in copies.items()}
    assert torch.equal(found, rs.gramians(losses, flat))
    row = found[list(copies).index(split)]
    assert row[0, 1] == 0
    assert (row.diagonal() > 0).all()


def test_layers_of_another_network_than_the_losses_are_refused():
    backbone = BACKBONES["resnet"]()
    _, _, losses = branched(backbone)
    plain = rs.layers(backbone)
    with pytest.raises(RecipeError, match=r"none does on 'conv1' \(\d+ of \d+ layers are unused"):
        rs.gramians(losses, plain)
    assert not rs.gramians(losses, plain, allow_unused=True).any()


def test_the_first_unused_layer_is_named():
    _, _, losses, layers = trunk()
    spare = torch.nn.Linear(2, 2)
    more = {"used": layers["0"], "spare": list(spare.parameters()), "2": layers["2"]}
    with pytest.raises(RecipeError, match=r"none does on 'spare' \(1 of 3"):
        rs.gramians(losses, more)
    found = rs.gramians(losses, more, allow_unused=True)
    assert torch.equal(found[[0, 2]], rs.gramians(losses, layers))
    assert not found[1].any()


def test_a_layer_frozen_later_is_refused_or_zero():
    network, _, losses, layers = trunk()
    expected = rs.gramians(losses, layers)
    network[2].requires_grad_(False)
    with pytest.raises(RecipeError, match=r"trainable parameter, '2' is frozen\. Leave it out"):
        rs.gramians(losses, layers)
    found = rs.gramians(losses, layers, allow_unused=True)
    assert torch.equal(found[0], expected[0])
    assert not found[1].any()


def test_a_frozen_bias_adds_nothing_to_its_layer():
    network, _, losses, layers = trunk()
    expected = rs.gramians(losses, {"0": layers["0"], "2": [network[2].weight]})
    network[2].bias.requires_grad_(False)
    assert torch.equal(rs.gramians(losses, layers), expected)


def test_a_frozen_network_is_refused_by_its_first_layer():
    network, _, _, layers = trunk()
    network.requires_grad_(False)
    with pytest.raises(RecipeError, match="trainable parameter, '0' is frozen"):
        rs.gramians([network(torch.ones(1, 4)).sum()], layers)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda losses, outputs: losses[0], "one scalar a task .* got a tensor of shape"),
        (lambda losses, outputs: 1.5, r"one scalar a task .* got 1\.5"),
        (lambda losses, outputs: [], "got none at all"),
        (lambda losses, outputs: {}, "got none at all"),
        (lambda losses, outputs: [losses[0], 2.0], r"task number 1 is 2\.0"),
        (lambda losses, outputs: {"a": losses[0], "b": outputs[:, 0]}, r"task 'b' is .* \(6,\)"),
        (lambda losses, outputs: [losses[0], outputs.square()], r"number 1 is .* \(6, 3\)"),
        (lambda losses, outputs: [losses[0], torch.ones(())], "number 1 is a constant"),
        (lambda losses, outputs: {"a": losses[0].detach()}, "task 'a' is a constant"),
    ],
)
def test_what_is_no_loss_is_one_clear_line(wrong, message):
    _, outputs, losses, layers = trunk()
    with pytest.raises(RecipeError, match=message) as raised:
        rs.gramians(wrong(losses, outputs), layers)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda network: {}, "must be a mapping .* got an empty dict"),
        (lambda network: network, "must be a mapping .* got a Sequential"),
        (lambda network: list(network.parameters()), "must be a mapping .* got a list"),
        (lambda network: {"0": network[0].weight}, "'0' holds a tensor of shape"),
        (lambda network: {"0": network[0]}, "'0' holds a Linear"),
        (lambda network: {"0": ["weight"]}, "'0' holds 'weight'"),
        (lambda network: {"0": []}, "trainable parameter, '0' is frozen"),
    ],
)
def test_what_are_no_layers_is_one_clear_line(wrong, message):
    network, _, losses, _ = trunk()
    with pytest.raises(RecipeError, match=message):
        rs.gramians(losses, wrong(network))
