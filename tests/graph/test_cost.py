from __future__ import annotations

import random

import networkx as nx
import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from recon_search.graph.analysis import analyse
from recon_search.graph.branch import branch
from recon_search.graph.cost import cost, layer_graph
from recon_search.graph.layers import layers
from recon_search.graph.split import Split
from tests import toys
from tests.graph.laws import random_split

ONE = torch.ones(2, 1, dtype=torch.float64)


def test_cost_of_a_toy_is_known_by_hand() -> None:
    found = cost(toys.Residual(), Split.private(["body"], ["p", "q"]))
    assert (found.base_parameters, found.base_flops) == (4, 6)
    assert found.parameters == {("p", "q"): 2, ("p",): 2, ("q",): 2}
    assert found.flops == {("p", "q"): 2, ("p",): 4, ("q",): 4}


def test_cost_agrees_with_the_network_built() -> None:
    backbone = timm.create_model("test_resnet", num_classes=0)
    split = random_split(list(layers(backbone)), 2)
    example = torch.randn(2, 3, 64, 64)
    found = cost(backbone, split, example=example)
    network = branch(backbone, split, example=example).eval()
    assert found.total_parameters == sum(p.numel() for p in network.parameters())
    with FlopCounterMode(display=False) as counter:
        network(example[:1])
    assert found.total_flops == counter.get_total_flops()


def test_an_early_fork_costs_computation_and_a_late_one_does_not() -> None:
    backbone = timm.create_model("test_resnet", num_classes=0)
    example = torch.randn(2, 3, 64, 64)
    none = cost(backbone, Split.private([], ["p", "q"]), example=example)
    early = cost(backbone, Split.private(["bn1"], ["p", "q"]), example=example)
    late = cost(backbone, Split.private(["layer4.0.conv2"], ["p", "q"]), example=example)
    assert none.total_flops == none.base_flops
    assert none.total_flops < late.total_flops < 1.2 * none.total_flops
    assert 1.5 * none.total_flops < early.total_flops < 2 * none.total_flops
    assert early.total_parameters < late.total_parameters


def test_layer_graph_of_a_residual_block() -> None:
    graph = layer_graph(toys.Residual())
    assert set(graph.edges) == {("stem", "body"), ("stem", "head"), ("body", "head")}
    assert graph.nodes["body"] == {"n_parameters": 2}


def test_descendants_are_the_layers_after_the_fork() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=0)
    graph = layer_graph(model)
    assert list(graph.successors("patch_embed.proj")) == ["pos_embed"]
    assert nx.is_directed_acyclic_graph(graph)
    assert nx.descendants(graph, "blocks.0.mlp.fc1") == {"blocks.0.mlp.fc2", "norm"}


SMALL = {
    "test_resnet": {},
    "test_efficientnet": {},
    "vit_tiny_patch16_224": {"img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 2},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (4, 8, 8, 8)},
}


@pytest.mark.parametrize("name", SMALL)
def test_flops_of_private_layers_are_those_that_any_of_them_repeats(name: str) -> None:
    analysis = analyse(timm.create_model(name, num_classes=0, **SMALL[name]))
    draw, tasks = random.Random(0), ("p", "q", "r")
    for k in (0, 1, 2, 5):
        chosen = draw.sample(list(analysis.layers), k)
        expected = analysis.flops_of(Split.private(chosen, tasks))
        assert analysis.flops_of_private(chosen, 3) == pytest.approx(expected, rel=1e-12)
