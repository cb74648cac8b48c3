"""Every timm family: its smallest model, split at random, against eager models of one task each."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from recon_search.graph.branch import branch
from recon_search.graph.exported import expect_like
from recon_search.graph.layers import layers
from tests.graph.families import FAMILIES, SINGLE_PRECISION, make_family
from tests.graph.laws import assert_close, check_paths, random_split, randomise, silence

N_FAST = 20


def cases() -> list[Any]:
    slow = [pytest.param(family, marks=pytest.mark.slow) for family in list(FAMILIES)[N_FAST:]]
    return [*list(FAMILIES)[:N_FAST], *slow]


def test_no_family_is_left_out() -> None:
    assert set(FAMILIES) >= set(timm.list_modules())


@pytest.mark.parametrize("family", cases())
def test_every_path_equals_a_plain_model(family: str) -> None:
    _, size, _ = FAMILIES[family]
    dtype = torch.float32 if family == "gemma4_vit" else torch.float64
    tolerance = SINGLE_PRECISION.get(family, 1e-9)
    torch.manual_seed(0)
    model = make_family(family).to(dtype)
    silence(model)
    randomise(model)
    network = branch(model, random_split(list(layers(model))))  # as a user does, without example=
    exported = network.blueprint.graphs[True].find_nodes(op="call_function", target=expect_like)
    side = (size, size) if not exported else exported[0].args[1][1:]
    x = torch.randn(3, 3, *side, dtype=dtype)
    randomise(network, 1)
    with torch.no_grad():
        for task, output in network.eval()(x).items():
            assert_close(output, network.single(task)(x), tolerance, f"output of {task}")
    check_paths(network.train(), x, tolerance)
