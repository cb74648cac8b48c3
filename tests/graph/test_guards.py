"""One test for each thing that makes a rewrite go wrong; it fails when its guard is taken away."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from recon_search.errors import BackboneError, SplitError
from recon_search.graph.branch import branch
from recon_search.graph.branched import BranchedBackbone
from recon_search.graph.layers import layers
from recon_search.graph.split import Split
from tests import toys
from tests.graph.laws import check_paths, randomise, silence

ONE = torch.ones(2, 1, dtype=torch.float64)


def split_toy(toy: nn.Module, *names: str) -> BranchedBackbone:
    return branch(toy, Split.private(names, ["p", "q"]))


def set_second(network: BranchedBackbone, layer: str, value: float) -> None:
    with torch.no_grad():
        network.layers()[layer][1].parameters[0].fill_(value)


def answers(network: BranchedBackbone, x: Tensor = ONE) -> dict[str, float]:
    return {task: output.flatten()[0].item() for task, output in network(x).items()}


def test_arguments_after_the_first_are_frozen_at_their_defaults() -> None:
    network = split_toy(toys.Optional(), "map")
    set_second(network, "map", 5)
    assert answers(network) == {"p": 2, "q": 5}


def test_layers_inside_a_leaf_are_split_and_others_shared() -> None:
    network = split_toy(toys.Leafy(), "leaf.up")
    set_second(network, "leaf.up", 10)
    assert answers(network) == {"p": 12, "q": 60}
    assert len(list(network.parameters())) == 4
    assert [len(blocks) for blocks in network.layers().values()] == [1, 1, 2]
    check_paths(network, ONE)


def test_tied_layers_are_split_together() -> None:
    toy = toys.Tied()
    assert list(layers(toy)) == ["first"]
    network = split_toy(toy, "first")
    set_second(network, "first", 4)
    assert answers(network) == {"p": 9, "q": 16}
    single = network.single("q")
    assert single.first.weight is single.second.weight
    assert len(list(network.parameters())) == 2
    check_paths(network, ONE)


def test_in_place_operations_stay_inside_their_branch() -> None:
    network = split_toy(toys.InPlace(), "shift")
    set_second(network, "shift", 7)
    assert answers(network) == {"p": 10, "q": 18}
    check_paths(network, ONE)


def test_in_place_operations_on_shared_values_cost_no_copy() -> None:
    network = branch(timm.create_model("test_resnet", num_classes=0), Split.private([], ["p", "q"]))
    layout = network.blueprint.layout
    assert layout.held == layout.computed


def test_a_function_that_writes_into_its_argument() -> None:
    """timm's no-trace `cal_rel_pos_type` (mvitv2) adds to the attention map it is given."""
    torch.manual_seed(0)
    split = Split.private(["attention.rel_pos_h", "attention.rel_pos_w"], ["p", "q"])
    x = torch.randn(2, 17, 8, dtype=torch.float64)
    network = branch(toys.Windowed().double(), split, example=x)
    randomise(network, 1)
    check_paths(network, x)


@pytest.mark.parametrize("training", [True, False])
def test_statistics_written_by_module_or_function_are_private(training: bool) -> None:
    torch.manual_seed(0)
    network = split_toy(toys.Normed().double(), "map").train(training)
    randomise(network, 1)
    assert [len(blocks) for blocks in network.layers().values()] == [2, 1, 1]
    x = torch.randn(8, 3, dtype=torch.float64)
    check_paths(network, x)
    state = network.task_state_dict("q")
    assert int(state["norm.num_batches_tracked"]) == int(training)
    assert int(state["second.num_batches_tracked"]) == int(training)
    check_paths(network.eval(), x)


def test_modes_are_followed_by_code_that_reads_training() -> None:
    network = split_toy(toys.Moody(), "map")
    set_second(network, "map", 5)
    assert answers(network.train()) == {"p": 0, "q": 0}
    assert answers(network.eval()) == {"p": 2, "q": 5}
    assert answers(network.train()) == {"p": 0, "q": 0}


def test_attention_dropout_follows_the_mode() -> None:
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=1, num_classes=0, attn_drop_rate=0.5
    ).train()
    network = branch(model, Split.private(["blocks.0.attn.qkv"], ["p", "q"]))
    x = torch.randn(2, 3, 32, 32)
    assert not torch.equal(network(x)["p"], network(x)["p"])
    network.eval()
    assert torch.equal(network(x)["p"], network(x)["p"])


def test_drop_path_follows_the_mode() -> None:
    torch.manual_seed(0)
    model = timm.create_model("convnext_atto", num_classes=0, drop_path_rate=0.9).eval()
    randomise(model)
    network = branch(
        model, Split.private(["stem.0"], ["p", "q"]), example=torch.zeros(2, 3, 32, 32)
    )
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(network(x)["p"], model(x))
    network.train()
    assert not torch.equal(network(x)["p"], network(x)["p"])


def test_constants_made_in_the_forward_pass_move_with_the_network() -> None:
    network = split_toy(toys.Constant(), "map")
    set_second(network, "map", 5)
    assert answers(network) == {"p": 7, "q": 10}
    assert not any("constant" in name for name in network.state_dict())
    assert {tensor.device.type for tensor in network.to("meta").buffers()} == {"meta"}
    output = network(torch.ones(2, 1, dtype=torch.float64, device="meta"))["q"]
    assert output.device.type == "meta"
    assert not any("constant" in name for name, _ in network.single("p").named_buffers())


def test_cached_biases_do_not_go_stale() -> None:
    toy = toys.Cached().eval()
    toy(ONE)
    network = split_toy(toy, "biased").eval()
    assert toy.biased.attention_bias_cache["cpu"].item() == 1
    assert answers(network) == {"p": 3, "q": 3}
    state = network.task_state_dict("q")
    network.load_task_state_dict("q", {**state, "biased.bias": torch.zeros(1)})
    assert answers(network) == {"p": 3, "q": 2}
    set_second(network.train(), "biased", 5)
    assert answers(network.eval()) == {"p": 3, "q": 7}
    assert not network.single("q").biased.attention_bias_cache


def test_cached_biases_inside_leaves_are_emptied() -> None:
    model = timm.create_model("tiny_vit_5m_224", num_classes=0).eval()
    randomise(model)
    name = next(name for name in layers(model) if "attention_biases" in name)
    example = torch.zeros(1, 3, 64, 64)
    network = branch(model, Split.private([name], ["p", "q"]), example=example).eval()
    x = torch.randn(1, 3, 64, 64)
    network(x)
    randomise(network.train(), 1)
    outputs = network.eval()(x)
    for task, output in outputs.items():
        torch.testing.assert_close(output, network.single(task)(x))


def test_unused_parameters_are_no_layers_and_cannot_be_split() -> None:
    toy = toys.Idle()
    assert list(layers(toy)) == ["map"]
    for name in ("spare", "bench"):
        with pytest.raises(SplitError, match=f"Idle its forward pass does not use '{name}'"):
            split_toy(toy, name)
    network = split_toy(toy, "map")
    assert list(network.task_state_dict("p")) == list(toy.state_dict())
    network.single("p").load_state_dict(toy.state_dict())


def test_a_backbone_that_branches_on_values_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"must be traceable .* Fickle is not .*Choose another"):
        layers(toys.Fickle())


def under_no_grad(toy: toys.Pair, x: Tensor) -> Tensor:
    with torch.no_grad():
        fixed = toy.second(x)
    return toy.first(x) + fixed


def under_autocast(toy: toys.Pair, x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return toy.first(x)


def by_chance(toy: toys.Pair, x: Tensor) -> Tensor:
    return toy.first(x) if random.random() < 2 else toy.second(x)


def by_type(toy: toys.Pair, x: Tensor) -> Tensor:
    y: Tensor = toy.first(x)
    return y if isinstance(x, Tensor) else y * 2


def by_call(toy: toys.Pair, x: Tensor) -> Tensor:
    toy.calls += 1
    return toy.first(x) * toy.calls


def unrolled(toy: toys.Pair, x: Tensor) -> Tensor:
    return toy.first(x) / len(x)


def assigned(toy: toys.Pair, x: Tensor) -> Tensor:
    y: Tensor = toy.first(x)
    toy.mean = toy.mean + y.detach().mean(0)
    return y


def lost(toy: toys.Pair, x: Tensor) -> Tensor:
    y: Tensor = toy.first(x)
    toy.mean.data = toy.mean + y.detach().mean(0)
    return y


STRANGER = toys.scalar(1)


def borrowed(toy: toys.Pair, x: Tensor) -> Tensor:
    out: Tensor = STRANGER(toy.first(x))
    return out


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (under_no_grad, "computes under no_grad"),
        (under_autocast, "computes under autocast of its own"),
        (by_chance, "draws random numbers that a graph would repeat"),
        (by_type, "must compute what the backbone does"),
        (by_call, "must compute what the backbone does"),
        (unrolled, "'len' is not supported"),
        (assigned, "assigns its buffer 'mean'"),
        (lost, "must compute what the backbone does"),
        (borrowed, "not installed as a submodule"),
    ],
)
def test_what_a_graph_would_freeze_or_lose_is_refused(
    run: Callable[[toys.Pair, Tensor], Tensor], reason: str
) -> None:
    with pytest.raises(BackboneError, match=reason):
        split_toy(toys.Pair(run), "first")


def test_random_numbers_are_drawn_anew_at_every_call() -> None:
    toy = toys.Pair(lambda toy, x: toy.first(x) + torch.rand(1))
    before = torch.get_rng_state()
    network = split_toy(toy, "first")
    assert torch.equal(torch.get_rng_state(), before)
    set_second(network, "first", 5)
    first, then = answers(network), answers(network)
    assert first["p"] != then["p"]
    assert first["q"] - first["p"] == pytest.approx(3)


def test_hooks_of_the_backbone_take_part() -> None:
    toy = toys.Residual()
    toy.register_forward_hook(lambda module, inputs, output: output * 10)
    toy.body.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
    network = split_toy(toy, "body")
    set_second(network, "body", 10)
    assert answers(network) == {"p": 120, "q": 330}
    check_paths(network, ONE)


def kept(toy: toys.Pair, x: Tensor) -> Tensor:
    """Keep what is computed, and compute an offset at the first call alone."""
    toy.last = toy.first(x)
    if getattr(toy, "offset", None) is None:
        toy.offset = x.new_ones(1)
    return toy.second(toy.last) + toy.offset  # type: ignore[no-any-return]


@pytest.mark.parametrize("training", [True, False])
def test_what_the_forward_pass_keeps_on_its_module_is_computed_anew(training: bool) -> None:
    network = split_toy(toys.Pair(kept), "second").train(training)
    set_second(network, "second", 7)
    assert answers(network) == {"p": 7, "q": 15}
    check_paths(network, ONE)


def with_aliases(toy: Any, x: Tensor) -> Tensor:
    whole, view = toy.leaf(toy.first(x))
    whole.add_(toy.second(x))
    return whole + view  # type: ignore[no-any-return]


def with_stealth(toy: Any, x: Tensor) -> Tensor:
    y = toy.first(x)
    return toy.leaf(y, toy.second(x).detach()) + y  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("run", "leaf"), [(with_aliases, toys.Twofold()), (with_stealth, toys.Stealthy())]
)
def test_in_place_operations_in_and_after_leaves_stay_inside_their_branch(
    run: Callable[[Any, Tensor], Tensor], leaf: nn.Module
) -> None:
    toy = toys.Pair(run)
    toy.leaf = leaf
    network = split_toy(toy, "second")
    set_second(network, "second", 7)
    assert answers(network) == {"p": 10, "q": 18}


def shifted(toy: toys.Pair, x: Tensor) -> Tensor:
    """Set items, which torch.fx cannot follow and torch.export can."""
    y: Tensor = toy.first(x)
    y[:, :1] = toy.second(x)
    return toy.first(y)


def test_exported_graphs_are_exact() -> None:
    network = split_toy(toys.Pair(shifted), "second")
    set_second(network, "second", 7)
    assert answers(network) == {"p": 6, "q": 14}
    check_paths(network, torch.ones(5, 1, dtype=torch.float64))


def test_exported_graphs_refuse_what_they_were_not_made_for() -> None:
    network = split_toy(toys.Pair(shifted), "second")
    with pytest.raises(BackboneError, match=r"shape \(B, 1\) and torch.float64 only, got \(2, 1\)"):
        network(ONE.float())
    with pytest.raises(BackboneError, match=r"got \(2, 1, 1\)"):
        network(ONE[..., None])


def test_frozen_statistics_stay_frozen() -> None:
    """timm's BatchNormAct2d is no module of torch.nn, and is called by a function inside."""
    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet", num_classes=0).double().train()
    silence(model)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    network = branch(model, Split.private(["blocks.1.0.conv_exp"], ["p", "q"]), example=x)
    before = network.task_state_dict("p")["bn1.running_mean"].clone()
    assert torch.equal(network(x)["p"], model(x))
    assert torch.equal(network.task_state_dict("p")["bn1.running_mean"], before)


def test_frozen_layers_cannot_be_split() -> None:
    toy = toys.Residual()
    toy.body.requires_grad_(False)
    with pytest.raises(SplitError, match="Residual froze 'body'"):
        split_toy(toy, "body")
    network = split_toy(toy, "stem")
    assert not any(p.requires_grad for n, p in network.named_parameters() if "body" in n)
    check_paths(network, ONE)


def old_weight_norm() -> nn.Module:
    toy = toys.Residual()
    toy.body.register_parameter("scale", nn.Parameter(torch.ones(1)))
    toy.body.scaled = toy.body.scale * 2
    return toy


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (old_weight_norm, r"must be copyable and initialised, Residual is not \(RuntimeError"),
        (lambda: nn.Sequential(nn.LazyLinear(3)), "uninitialized parameter.*Run lazy modules once"),
        (lambda: nn.ModuleDict({"class": toys.scalar(1)}), "free of Python keywords.*has 'class'"),
        (lambda: nn.ModuleDict({'a"b': toys.scalar(1)}), "free of Python keywords, quotes"),
    ],
)
def test_backbones_that_cannot_be_written_down_are_refused(
    make: Callable[[], nn.Module], reason: str
) -> None:
    with pytest.raises(BackboneError, match=reason):
        layers(make())


def test_parametrized_layers_are_split_and_exact() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4)).double()
    nn.utils.parametrizations.weight_norm(model[0])
    nn.utils.parametrizations.spectral_norm(model[2])
    x = torch.randn(5, 3, dtype=torch.float64)
    network = branch(model, Split.private(list(layers(model))[:3], ["p", "q"]), example=x)
    randomise(network, 1)
    for training in (True, False):
        check_paths(network.train(training), x)
