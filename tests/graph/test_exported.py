"""Backbones that only torch.export can follow are exact too; what neither can is told why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.models import register_notrace_module
from torch import Tensor, nn
from torch.nn import functional

from recon_search.errors import BackboneError
from recon_search.graph.branch import branch
from recon_search.graph.exported import expect_like
from recon_search.graph.layers import layers
from recon_search.graph.split import Split
from tests import toys
from tests.graph.laws import assert_close, check_paths, random_split, randomise


class Convnet(nn.Module):
    """A convolutional network of one's own, with BatchNorm and a look at the shape."""

    def __init__(self, look: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.look = look
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.first = nn.BatchNorm2d(4)
        self.position = nn.Parameter(torch.randn(1, 4, 4, 4))
        self.body = nn.Conv2d(4, 4, 3, padding=1)
        self.second = nn.BatchNorm2d(4, momentum=0.3)
        self.register_buffer("mean", torch.zeros(4))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.look(self, x)
        x = self.first(self.stem(x)).relu_()
        x = x + functional.interpolate(self.position, x.shape[2:])
        x = self.second(self.body(x))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


def asserted(model: Convnet, x: Tensor) -> Tensor:
    assert x.shape[1] == 3
    return x


def checked(model: Convnet, x: Tensor) -> Tensor:
    if x.ndim != 4 or x.size(1) != 3:
        raise ValueError("images only")
    return x


def padded(model: Convnet, x: Tensor) -> Tensor:
    lower, right = (-x.shape[2]) % 32, (-x.shape[3]) % 32
    return functional.pad(x, (0, right, 0, lower)) if lower or right else x


def ranged(model: Convnet, x: Tensor) -> Tensor:
    rows = [x[:, :, i] for i in range(x.shape[2])]
    return torch.stack(rows[::-1], 2)


def halved(model: Convnet, x: Tensor) -> Tensor:
    return x[:, :, : int(x.shape[2] / 2)]


def positioned(model: Convnet, x: Tensor) -> Tensor:
    rows = torch.linspace(0, 1, steps=int(x.shape[2]), dtype=x.dtype)
    return x + rows[:, None] if len(rows) > 1 else x


def tracked(model: Any, x: Tensor) -> Tensor:
    assert x.shape[1] == 3
    y = model.stem(x)
    if model.training:
        with torch.no_grad():
            model.mean.lerp_(y.mean((0, 2, 3)), 0.1)
    return x + (y - model.mean[:, None, None])[:, :3]


LOOKS = [asserted, checked, padded, ranged, halved, positioned, tracked]


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: str(look.__name__))
def test_networks_of_ones_own_are_exact_with_private_statistics(look: Any) -> None:
    torch.manual_seed(0)
    model = Convnet(look).double()
    names = list(layers(model))
    assert names[:3] == ["stem", "first", "position"]
    network = branch(model, Split.private(["stem"], ["p", "q"])).train()
    randomise(network, 1)
    x = torch.randn(5, 3, 32, 32, dtype=torch.float64)
    for _ in range(2):
        check_paths(network, x, 1e-10)
    states = [network.task_state_dict(task) for task in network.tasks]
    for name in ("first.running_mean", "second.running_var"):
        assert not torch.equal(states[0][name], states[1][name])
    assert int(states[1]["second.num_batches_tracked"]) == 2
    check_paths(network.eval(), x, 1e-10)


def test_statistics_before_a_fork_stay_shared() -> None:
    torch.manual_seed(0)
    network = branch(Convnet(asserted).double(), Split.private(["head"], ["p", "q"])).train()
    assert not [name for name, _ in network.named_buffers() if name.startswith("branches")]
    check_paths(network, torch.randn(5, 3, 32, 32, dtype=torch.float64), 1e-10)


class Structured(nn.Module):
    """Outputs of several tensors, from code that torch.fx cannot follow."""

    def __init__(self, arrange: Callable[[Tensor, Tensor, int], Any]) -> None:
        super().__init__()
        self.first = toys.scalar(2)
        self.second = toys.scalar(3)
        self.arrange = arrange

    def forward(self, x: Tensor) -> Any:
        assert x.shape[1] == 1
        y = self.first(x)
        return self.arrange(y, self.second(y), x.shape[1])


@pytest.mark.parametrize(
    ("arrange", "read"),
    [
        (lambda y, z, n: (y, z), lambda out: out[1]),
        (lambda y, z, n: [y, [z]], lambda out: out[1][0]),
        (lambda y, z, n: {"low": y, "high": (z, n)}, lambda out: out["high"][0]),
        (lambda y, z, n: {"all": [y, None, z]}, lambda out: out["all"][2]),
        (lambda y, z, n: [z], lambda out: out[0]),
    ],
)
def test_outputs_keep_their_structure(
    arrange: Callable[..., Any], read: Callable[[Any], Tensor]
) -> None:
    model = Structured(arrange)
    network = branch(model, Split.private(["second"], ["p", "q"]))
    with torch.no_grad():
        network.layers()["second"][1].parameters[0].fill_(10)
    x = torch.ones(4, 1, dtype=torch.float64)
    outputs, expected = network(x), model(x)
    assert torch.utils._pytree.tree_structure(outputs["p"]) == (
        torch.utils._pytree.tree_structure(expected)
    )
    assert read(outputs["p"])[0].item() == read(expected)[0].item() == 6
    assert read(outputs["q"])[0].item() == 20


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (
            "vit_tiny_patch16_224",
            {"img_size": 64, "depth": 3, "dynamic_img_size": True, "features_only": True},
        ),
        ("crossvit_tiny_240", {"num_classes": 0}),
    ],
)
def test_models_of_several_outputs_are_exact(name: str, arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, **arguments).double().eval()
    randomise(model)
    network = branch(model, random_split(list(layers(model)))).eval()
    randomise(network, 1)
    side = arguments.get("img_size", 240)
    x = torch.randn(3, 3, side, side, dtype=torch.float64)
    with torch.no_grad():
        for task, output in network(x).items():
            expected = network.single(task)(x)
            pairs = zip(
                torch.utils._pytree.tree_leaves(output),
                torch.utils._pytree.tree_leaves(expected),
                strict=True,
            )
            for one, other in pairs:
                assert_close(one, other, 1e-6, task)  # positions are float32


class Fork(nn.Module):
    """Branch on values inside a module of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.map = toys.scalar(2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.map(x) if x.sum() > 0 else x
        return out


def test_both_reasons_and_the_place_are_told() -> None:
    with pytest.raises(BackboneError, match="must be traceable") as caught:
        layers(nn.Sequential(toys.scalar(2), Fork()))
    message = str(caught.value)
    assert "torch.fx: TraceError: symbolically traced variables" in message
    assert "in Fork.forward, test_exported.py:" in message
    assert "; torch.export: " in message
    assert "data-dependent" in message
    assert "pass example=" in message
    assert "keep Fork whole: mark it with timm.models.register_notrace_module" in message
    assert "\n" not in message
    with pytest.raises(BackboneError, match="move what branches into a module of its own") as found:
        layers(Fork(), example=torch.ones(2, 1, dtype=torch.float64))
    assert "pass example=" not in str(found.value)


def test_the_advice_helps() -> None:
    kept = register_notrace_module(type("Kept", (Fork,), {}))
    assert list(layers(nn.Sequential(toys.scalar(2), kept()))) == ["0", "1.map"]


@pytest.mark.parametrize("followed", ["fx", "export"])
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_frozen_stem_may_lie_under_no_grad(context: Any, followed: str) -> None:
    def look(model: Any, x: Tensor) -> Tensor:
        if followed == "export":
            assert x.shape[1] == 3
        with context():
            y = model.first(model.stem(x)).clone() + x.shape[1]
        return x + y[:, :3].clone()

    torch.manual_seed(0)
    model = Convnet(look).double().eval()
    with pytest.raises(BackboneError, match="computes under no_grad with weights that train"):
        layers(model)
    model.stem.requires_grad_(False)
    model.first.requires_grad_(False)
    assert list(layers(model)) == ["position", "body", "second", "head"]
    network = branch(model, Split.private(["body"], ["p", "q"]))
    used = [node.target is expect_like for node in network.blueprint.graphs[True].nodes]
    assert any(used) == (followed == "export")
    randomise(network, 1)
    x = torch.randn(5, 3, 32, 32, dtype=torch.float64)
    if context is torch.no_grad:
        for training in (True, False):
            check_paths(network.train(training), x, 1e-10)
    else:
        for task, output in network(x).items():
            assert torch.equal(output, network.single(task)(x))


def test_what_enters_a_region_under_no_grad_gets_no_gradient() -> None:
    def run(toy: toys.Pair, x: Tensor) -> Tensor:
        y: Tensor = toy.first(x)
        with torch.no_grad():
            scale = (toy.second(y) + y.shape[0]).abs()
        return y / scale

    toy = toys.Pair(run)
    toy.second.requires_grad_(False)
    network = branch(toy, Split.private(["first"], ["p", "q"]))
    randomise(network, 1)
    check_paths(network, torch.ones(5, 1, dtype=torch.float64), 1e-10)


def test_exported_networks_compile_and_export_again() -> None:
    torch.manual_seed(0)
    network = branch(Convnet(padded).double(), Split.private(["body"], ["p", "q"])).eval()
    randomise(network, 1)
    x = torch.randn(5, 3, 32, 32, dtype=torch.float64)
    expected = network(x)
    compiled = torch.compile(network, backend="eager", fullgraph=True)(x)
    batch = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(network, (x,), dynamic_shapes=batch).module()(x)
    for task, output in expected.items():
        assert torch.equal(compiled[task], output)
        assert_close(program[task], output, 1e-12, task)
