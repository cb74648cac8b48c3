"""A pickled network comes back whole, in another process too."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

import recon_search as rs
from recon_search.graph.branch import branch
from recon_search.graph.branched import BranchedBackbone
from recon_search.graph.layers import layers
from recon_search.graph.split import Split
from recon_search.model.network import MultiTaskModel
from tests import toys
from tests.graph.laws import TASKS, check_paths, random_split, randomise
from tests.graph.models import images


@pytest.fixture
def network(backbone: nn.Module) -> BranchedBackbone:
    network = branch(backbone, random_split(list(layers(backbone)), 1))
    randomise(network, 1)
    return network


def pickled(model: Any) -> Any:
    return pickle.loads(pickle.dumps(model))


def saved(model: Any) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS = {"pickled": pickled, "saved": saved, "shallow": copy.copy, "deep": copy.deepcopy}


def assert_same(found: nn.Module, expected: nn.Module, x: Tensor) -> None:
    for training in (True, False):
        found.train(training)
        outputs = copy.deepcopy(found)(x)
        others = copy.deepcopy(expected.train(training))(x)
        assert list(outputs) == list(others)
        assert all(torch.equal(outputs[task], others[task]) for task in others)
    states = found.state_dict(), expected.state_dict()
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])


@pytest.mark.parametrize("how", list(WAYS))
@pytest.mark.parametrize("training", [True, False])
def test_a_network_comes_back_whole(network: BranchedBackbone, how: str, training: bool) -> None:
    network.train(training)
    twin = WAYS[how](network)
    assert twin.training == training
    assert twin.split == network.split
    assert twin._aliases == network._aliases
    assert len(list(twin.parameters())) == len(list(network.parameters()))
    assert_same(twin, network, images())
    assert torch.equal(twin.eval()(images(), ["b"])["b"], network.eval()(images(), ["b"])["b"])
    check_paths(twin, images())
    compiled = torch.compile(twin.eval(), backend="eager", fullgraph=True)
    assert torch.equal(compiled(images())["a"], twin(images())["a"])


def test_what_was_unpickled_can_be_split_further_and_pickled_again(
    network: BranchedBackbone,
) -> None:
    finer = Split(TASKS, {**network.split.layers, "conv1.0": (("a",), ("b",), ("c",))})
    twin = branch(pickled(pickled(network)), finer)
    assert_same(twin, branch(network, finer), images())


def test_deep_copies_share_the_generated_functions(network: BranchedBackbone) -> None:
    twin = copy.deepcopy(network)
    assert twin.blueprint is network.blueprint
    assert twin._forwards == network._forwards
    assert twin._forwards is not network._forwards


@pytest.mark.parametrize("make", [AveragedModel, ModelEmaV3])
@pytest.mark.parametrize("how", ["pickled", "saved", "deep"])
def test_averages_come_back_whole(
    network: BranchedBackbone, make: Callable[[nn.Module], Any], how: str
) -> None:
    average = make(network)
    randomise(network, 2)
    average.update_parameters(network) if make is AveragedModel else average.update(network)
    twin = WAYS[how](average)
    assert_same(twin.module, average.module, images())
    randomise(network, 3)
    for one in (average, twin):
        one.update_parameters(network) if make is AveragedModel else one.update(network)
    assert_same(twin.module, average.module, images())


@pytest.mark.parametrize("how", list(WAYS))
def test_a_model_with_heads_comes_back_whole(network: BranchedBackbone, how: str) -> None:
    heads = {task: nn.Linear(16, 2).double() for task in TASKS}
    model = MultiTaskModel(network, heads, {"input": {"shape": [3, 32, 32]}})
    twin = WAYS[how](model)
    assert_same(twin, model, images())
    assert twin.config == model.config
    assert twin.no_weight_decay() == model.no_weight_decay()


# Long graphs, operators in place, constants, caches, functions that timm keeps whole.
FAMILIES: dict[str, dict[str, Any]] = {
    "mvitv2_tiny": {},
    "swin_tiny_patch4_window7_224": {"img_size": 64, "window_size": 2, "depths": (1, 1, 1, 1)},
    "levit_128s": {},
    "tiny_vit_5m_224": {},
}


@pytest.mark.parametrize("name", list(FAMILIES))
def test_every_kind_of_graph_is_pickled(name: str) -> None:
    torch.manual_seed(0)
    plain = timm.create_model(name, num_classes=0, **FAMILIES[name])
    names = list(layers(plain))
    network = branch(plain, Split.private(names[-2:], ["p", "q"])).eval()
    twin = pickled(network)
    for mine, other in zip(
        twin.blueprint.graphs.values(), network.blueprint.graphs.values(), strict=True
    ):
        assert [str(node) for node in mine.nodes] == [str(node) for node in other.nodes]
        assert mine.python_code("self").src == other.python_code("self").src
    layout, expected = twin.blueprint.layout, network.blueprint.layout
    assert [*layout.held.values()] == [*expected.held.values()]
    assert [*layout.computed.values()] == [*expected.computed.values()]


class Exported(nn.Module):
    """Branch on a shape, where only torch.export can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, 3)
        self.norm = nn.LayerNorm(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.map(x) if x.shape[1] > 1 else x
        return functional.gelu(self.norm(x)) + torch.arange(3, device=x.device)


def test_graphs_of_operators_are_pickled() -> None:
    x = torch.randn(2, 3)
    network = branch(Exported(), Split.private(["norm"], TASKS), example=x)
    targets = [node.target for node in network.blueprint.graphs[True].nodes]
    assert any(isinstance(target, torch._ops.OpOverload) for target in targets)
    randomise(network)
    assert_same(pickled(network), network, torch.randn(5, 3))


def test_another_process_loads_a_network_with_torch_alone(
    network: BranchedBackbone, tmp_path: Path
) -> None:
    network.eval()
    torch.save((network, images(), network(images())["b"]), tmp_path / "network.pt")
    code = (
        "import sys, torch\n"
        "network, x, expected = torch.load(sys.argv[1], weights_only=False)\n"
        "torch.testing.assert_close(network(x)['b'], expected, rtol=1e-9, atol=1e-9)\n"
        "print(type(network).__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "network.pt")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "BranchedBackbone"


def test_networks_of_ones_own_classes_are_pickled() -> None:
    network = rs.branch(toys.Leafy(), Split.private([next(iter(layers(toys.Leafy())))], TASKS))
    twin = pickled(network)
    assert type(twin.single("a")) is toys.Leafy
