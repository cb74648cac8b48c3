"""Backward passes in lockstep, against autograd's engine: exact, and in less memory."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

import recon_search as rs
from recon_search.conflict.lockstep import lockstep_gramians
from tests.brute_force import task_losses
from tests.conflict.test_gramian import BACKBONES
from tests.memory import PeakMemory

FAMILIES = BACKBONES | {
    name: lambda name=name, options=options: timm.create_model(
        name, in_chans=1, num_classes=8, **options
    )
    for name, options in {
        "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (4, 8, 8, 16)},
        "mobilenetv2_035": {},
        "swin_tiny_patch4_window7_224": {
            "img_size": 32, "window_size": 4, "embed_dim": 12, "depths": (1, 2), "num_heads": (1, 2)
        },
    }.items()
}  # fmt: skip


def check(model, losses, layers):
    """Compare Gramians and `.grad` with those of the engine, then clear."""
    found = lockstep_gramians(losses, layers)
    mine = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    expected = rs.gramians(losses, layers)
    sum(losses).backward(retain_graph=True)
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12 * scale)
    theirs = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert set(mine) == set(theirs)
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-10, atol=1e-12 * scale**0.5)
    model.zero_grad()


@pytest.mark.parametrize("family", FAMILIES)
def test_gramians_and_gradients_equal_those_of_the_engine(family):
    torch.manual_seed(0)
    backbone = FAMILIES[family]().double()
    check(backbone, task_losses(backbone, n_tasks=3, seed=0), rs.layers(backbone))


class Cube(torch.autograd.Function):
    """A node that is written in Python."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(context, gradient):
        (x,) = context.saved_tensors
        return 3 * x**2 * gradient


class Odd(nn.Module):
    """What a graph may hold beside layers: ties, broadcasts, views written to, unused outputs."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.scale, self.shift = nn.Parameter(torch.ones(6, 1)), nn.Parameter(torch.zeros(1))

    def forward(self, x):
        x = Cube.apply(self.second(torch.tanh(self.first(x))))
        left, _, right = x.split(2, dim=1)
        x = torch.cat([left, right, right], dim=1) * self.scale.T + self.shift
        x = self.first(x)
        x[:, 2:4] *= 2
        return torch.sort(x, dim=1).values + self.shift


def test_a_graph_of_oddities():
    torch.manual_seed(0)
    model = Odd().double()
    outputs = model(torch.randn(5, 6).double())
    losses = [outputs[:, :2].square().sum(), outputs[:, 3].sum(), (outputs * 2).sin().sum()]
    layers = {name: [parameter] for name, parameter in model.named_parameters()}
    check(model, losses, layers)


def test_losses_that_share_nothing_or_all():
    a, b = nn.Linear(2, 2).double(), nn.Linear(2, 2).double()
    model, x = nn.ModuleList([a, b]), torch.randn(3, 2).double()
    layers = {"a": list(a.parameters()), "b": list(b.parameters())}
    alone, other = a(x).square().sum(), b(x).square().sum()
    check(model, [alone, other], layers)
    check(model, [alone, alone, alone + other], layers)  # one loss is part of another's graph


def test_no_gradient_is_shared_between_parameters():
    """Addition hands one tensor to both sides: clipping in place must not meet it twice."""
    first, second = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    lockstep_gramians([(first + second).sum()], {"first": [first], "second": [second]})
    first.grad.mul_(2)
    assert second.grad.tolist() == [1, 1, 1]


@pytest.mark.parametrize("n_tasks", [2, 4])
def test_memory_is_that_of_the_largest_layer(n_tasks):
    """Twenty layers of 64 KiB: the engine keeps T sets of them, lockstep T of one layer."""
    width, depth = 128, 20
    blocks = [nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(depth)]
    model = nn.Sequential(*blocks)
    layers = {str(index): list(layer.parameters()) for index, layer in enumerate(model)}
    weights = torch.randn(n_tasks, width)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    layer = 4 * (width * width + width)

    def peak(function):
        outputs = model(torch.ones(1, width))
        losses = [(F.softplus(outputs) * weight).sum() for weight in weights]
        with PeakMemory() as memory:
            function(losses, layers)
        return memory.peak

    engine, lockstep = peak(rs.gramians), peak(lockstep_gramians)
    assert engine > n_tasks * depth * layer
    assert lockstep < (n_tasks + 2) * layer  # with the tasks' sum, which goes into `.grad`
