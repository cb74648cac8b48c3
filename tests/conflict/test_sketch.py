"""Laws of sketched gradients: unbiased, within the stated error, linear, exact where they fit."""

import itertools

import pytest
import timm
import torch

import recon_search as rs
from recon_search.conflict.sketch import PIECE, Sketches
from recon_search.errors import RecipeError
from tests.brute_force import task_losses
from tests.memory import PeakMemory

SIZE, SEEDS = 64, 600


def spread_out(generator):
    """Two correlated gradients of any old shape."""
    x = torch.randn(37, 53, generator=generator, dtype=torch.float64)
    return x, 0.4 * x - torch.randn(37, 53, generator=generator, dtype=torch.float64)


def concentrated(generator):
    """A few elements make up all: every SIZE-th, so that they would share one bucket if aligned."""
    x, y = spread_out(generator)
    mask = torch.zeros(x.numel(), dtype=torch.float64)
    mask[5 :: 2 * SIZE] = 10.0
    return x * mask.view_as(x), y * mask.view_as(y)


def repeated(generator):
    """Rows of SIZE that are all alike: aligned, their products would add up with equal signs."""
    x = torch.randn(SIZE, generator=generator, dtype=torch.float64).repeat(30)
    return x, x + 0.1 * torch.randn(len(x), generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("make", [spread_out, concentrated, repeated], ids=lambda f: f.__name__)
def test_inner_products_are_unbiased_and_within_the_stated_error(make):
    x, y = make(torch.Generator().manual_seed(0))
    found = torch.tensor(
        [
            rs.Sketch(SIZE, seed).project(x, 0) @ rs.Sketch(SIZE, seed).project(y, 0)
            for seed in range(SEEDS)
        ],
        dtype=torch.float64,
    )
    exact, squares = (x * y).sum(), (x.square().sum(), y.square().sum())
    stated = (squares[0] * squares[1] + exact**2 - 2 * (x * y).square().sum()) / SIZE
    assert abs(found.mean() - exact) < 4 * (stated / SEEDS).sqrt()
    assert 0.5 * stated < found.var() < 1.25 * stated


def test_cosines_come_to_the_exact_ones_as_the_size_grows():
    """By 1 / sqrt(size), as their first-order error says."""
    x, y = spread_out(torch.Generator().manual_seed(1))
    x, y = x.flatten(), y.flatten()
    exact = torch.cosine_similarity(x, y, dim=0)
    for size in (32, 128, 512):
        sketches = [rs.Sketch(size, seed) for seed in range(200)]
        found = torch.stack(
            [torch.cosine_similarity(s.project(x), s.project(y), dim=0) for s in sketches]
        )
        error = (found - exact).square().mean().sqrt()
        assert float(error) == pytest.approx(float((1 - exact**2) / size**0.5), rel=0.25)


@pytest.mark.parametrize("n", [SIZE + 1, 10 * SIZE, 2 * PIECE + 7])
def test_a_sketch_is_linear_and_keeps_every_element(n):
    generator = torch.Generator().manual_seed(n)
    x, y = torch.randn(2, n, generator=generator, dtype=torch.float64)
    sketch = rs.Sketch(SIZE, 3)
    torch.testing.assert_close(
        sketch.project(x, 1) - 2 * sketch.project(y, 1), sketch.project(x - 2 * y, 1)
    )
    one = torch.zeros(n, dtype=torch.float64)
    for place in (0, n // 2, n - 1):
        one.zero_()[place] = 5.0
        assert sorted(sketch.project(one).abs().tolist())[-2:] == [0.0, 5.0]


def test_projections_differ_by_seed_step_and_place_and_by_nothing_else():
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    sketch, later, other = rs.Sketch(SIZE, 1), rs.Sketch(SIZE, 1), rs.Sketch(SIZE, 2)
    later.step = 7
    torch.manual_seed(5)  # the global generator is neither read nor moved
    state = torch.get_rng_state()
    found = [s.project(x, place) for s in (sketch, later, other) for place in (0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(found, 2))
    torch.manual_seed(6)
    assert torch.equal(rs.Sketch(SIZE, 1).project(x, 0), found[0])


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return timm.create_model("resnet18", in_chans=1, num_classes=8, channels=[4, 4, 8, 8]).double()


def test_layers_that_fit_are_exact(backbone):
    losses, layers = task_losses(backbone, n_tasks=3, seed=0), rs.layers(backbone)
    exact = rs.gramians(losses, layers)
    sizes = torch.tensor([sum(p.numel() for p in layer) for layer in layers.values()])
    found = rs.gramians(losses, layers, sketch=rs.Sketch(64))
    fits = sizes <= 64
    assert fits.any()
    torch.testing.assert_close(found[fits], exact[fits], rtol=1e-12, atol=1e-14)
    assert not torch.isclose(found[~fits], exact[~fits], rtol=1e-6).all()
    whole = rs.gramians(losses, layers, sketch=rs.Sketch(int(sizes.max())))
    torch.testing.assert_close(whole, exact, rtol=1e-12, atol=1e-14)


def test_sketched_gramians_are_gramians_and_unbiased(backbone):
    """Symmetric and semi-definite each, so that no cosine leaves [-1, 1]; exact in the mean."""
    losses, layers = task_losses(backbone, n_tasks=3, seed=0), rs.layers(backbone)
    exact = rs.gramians(losses, layers)
    sketch, n = rs.Sketch(64, 1), 60
    found = torch.stack([rs.gramians(losses, layers, sketch=sketch) for _ in range(n)])
    assert sketch.step == n
    assert torch.equal(found, found.mT)
    assert (torch.linalg.eigvalsh(found) > -1e-12 * exact.abs().max()).all()
    squares = exact.diagonal(dim1=1, dim2=2)
    stated = ((squares[:, :, None] * squares[:, None] + exact**2) / 64 / n).sqrt()
    assert ((found.mean(0) - exact).abs() < 4.5 * stated + 1e-12).all()


def test_absent_tasks_and_layers_out_of_reach_have_zeros(backbone):
    losses, layers = task_losses(backbone, n_tasks=3, seed=0), rs.layers(backbone)
    unused = torch.nn.Linear(40, 40).double()
    layers = {**layers, "unused": list(unused.parameters())}
    some = [losses[0], None, losses[2]]
    found = rs.gramians(some, layers, allow_unused=True, sketch=rs.Sketch(16))
    exact = rs.gramians(some, layers, allow_unused=True)
    assert torch.equal(found != 0, exact != 0)
    assert not found[:, 1].any()
    assert not found[-1].any()
    with pytest.raises(RecipeError, match="none does on 'unused'"):
        rs.gramians(losses, layers, sketch=rs.Sketch(16))


def test_private_copies_have_inner_product_zero():
    backbone = timm.create_model("resnet18", in_chans=1, num_classes=0, channels=[4, 4, 8, 8])
    layer = "conv1"
    network = rs.branch(backbone, rs.Split.private([layer], ["a", "b"]))
    features = network(torch.randn(4, 1, 32, 32))
    losses = [features[task].square().mean() for task in ("a", "b")]
    copies = network.layers()
    row = rs.gramians(losses, copies, sketch=rs.Sketch(32))[list(copies).index(layer)]
    assert row[0, 1] == 0
    assert (row.diagonal() > 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_added_up_in_single(dtype):
    weight = torch.nn.Parameter(torch.ones(4000, dtype=dtype))
    found = rs.gramians([(300.0 * weight).sum()], {"layer": [weight]}, sketch=rs.Sketch(2000))
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(300.0**2 * 4000, rel=0.2)


def test_memory_does_not_grow_with_the_tasks():
    """Forty tasks in 16 numbers a layer take less than three tasks' gradients."""
    model = torch.nn.Sequential(*(torch.nn.Linear(512, 512) for _ in range(8)))
    one_set = sum(4 * parameter.numel() for parameter in model.parameters())
    outputs = model(torch.randn(2, 512))
    losses = [outputs[:, task].sum() for task in range(40)]
    with PeakMemory() as memory:
        rs.gramians(losses, rs.layers(model), sketch=rs.Sketch(16))
    assert memory.peak < 3 * one_set


def test_a_tied_parameter_counts_in_each_of_its_layers():
    weight = torch.nn.Parameter(torch.ones(3))
    sketches = Sketches(rs.Sketch(16), [[[weight]], [[weight]]], 1)
    sketches.take(0, weight, torch.full((3,), 2.0))
    assert sketches.gramians(torch.zeros(())).tolist() == [[[12.0]], [[12.0]]]


@pytest.mark.parametrize("size", [0, -3, 15])
def test_a_sketch_of_next_to_nothing_is_refused(size):
    with pytest.raises(RecipeError, match=rf"at least 16 numbers a layer, got {size}"):
        rs.Sketch(size)
