"""What a graph has read from a plain backbone cannot be set afterwards without a word."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import recon_search as rs
from recon_search.errors import BackboneError
from recon_search.graph.branched import BranchedBackbone


class Scaled(nn.Module):
    """A number, a flag, a choice and a function, read when it is traced."""

    slope = 2.0

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, 3)
        self.norm = nn.LayerNorm(3)
        self.scale = 0.5
        self.is_flipped = True
        self.act = nn.ReLU()
        self.shift = nn.Parameter(torch.ones(3))

    @property
    def twice(self) -> float:
        return 2 * self.scale

    def ending(self, x: Tensor) -> Tensor:
        return -x if self.is_flipped else x

    def forward(self, x: Tensor) -> Tensor:
        x = self.map(x) * self.scale * self.slope + self.shift
        weight, bias = self.norm.weight, self.norm.bias
        return self.ending(nn.functional.layer_norm(x, (3,), weight, bias, self.norm.eps))


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.alpha = 3.0
        self.block = Scaled()
        self.last = nn.BatchNorm1d(3)
        self.default_cfg = {"input_size": (3,)}

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.block(x)) * self.alpha


@pytest.fixture
def network() -> BranchedBackbone:
    torch.manual_seed(0)
    return rs.branch(
        Nested(), rs.Split.private(["block.map"], ["a", "b"]), example=torch.ones(4, 3)
    )


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ("", "alpha", 0.0),
        ("", "block", nn.Identity()),
        ("", "last", nn.Identity()),
        ("shared.block", "scale", 0.0),
        ("branches.a.block", "scale", 0.0),
        ("branches.b.block", "slope", 0.0),
        ("branches.a.block", "twice", 0.0),
        ("branches.a.block", "is_flipped", False),
        ("branches.a.block", "ending", abs),
        ("branches.a.block", "norm", nn.Identity()),
        ("branches.a.block", "shift", nn.Parameter(torch.zeros(3))),
        ("shared.block", "map", nn.Identity()),
        ("shared.block.norm", "eps", 1.0),
        ("shared", "alpha", 0.0),
        ("branches.a", "alpha", 0.0),
    ],
)
@pytest.mark.parametrize("copied", [False, True])
def test_setting_what_no_graph_reads_is_refused(
    network: BranchedBackbone, path: str, name: str, value: Any, copied: bool
) -> None:
    part = (copy.deepcopy(network) if copied else network).get_submodule(path)
    with pytest.raises(BackboneError, match=rf"is fixed.*'{name}'.*Set it on the plain backbone"):
        setattr(part, name, value)


def test_attributes_read_as_on_the_plain_backbone(network: BranchedBackbone) -> None:
    assert network.alpha == 3.0
    assert network.default_cfg == {"input_size": (3,)}


def test_what_is_read_or_new_may_be_set(network: BranchedBackbone) -> None:
    x = torch.randn(4, 3)
    network.eval()
    before = network(x)["a"]
    network.get_submodule("branches.a.last").eps = 10.0  # type: ignore[assignment]
    assert not torch.equal(network(x)["a"], before)
    network.get_submodule("branches.a.block").map = nn.Linear(3, 3)
    shared = network.get_submodule("shared.block")
    shared.shift = nn.Parameter(torch.zeros(3))
    assert not torch.equal(network(x)["b"], before)
    network.note = "mine"  # type: ignore[assignment]
    shared.note = "mine"  # type: ignore[assignment]
    network.default_cfg = {}  # type: ignore[assignment]
    network.training = True
    assert (network.note, shared.note, network.default_cfg) == ("mine", "mine", {})
