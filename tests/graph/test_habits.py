"""timm's optimisers and helpers treat every path of a branched network as the plain model."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from timm.data import resolve_model_data_config
from timm.models import group_modules, group_parameters
from timm.optim import create_optimizer_v2, param_groups_layer_decay
from torch import nn

import recon_search as rs
from recon_search.errors import BackboneError, SplitError
from recon_search.graph.branched import BranchedBackbone
from recon_search.graph.habits import plain_name
from recon_search.graph.layers import describe, layers
from recon_search.graph.tensors import first_names
from recon_search.model.network import MultiTaskModel
from tests import toys
from tests.graph.laws import TASKS, random_split

SMALL = {"channels": (8, 8, 16, 16)}
MODELS: dict[str, dict[str, Any]] = {
    "test_resnet": SMALL,  # a dict of patterns
    "test_vit": {},  # names kept from decay, norms in the group before
    "vit_relpos_small_patch16_224": {"img_size": 32, "depth": 2},  # patterns kept from decay
    "swin_tiny_patch4_window7_224": {"img_size": 64, "window_size": 2, "depths": (1, 1, 1, 1)},
    "levit_128s": {},  # names kept from decay read off the state dict
    "cait_xxs24_224": {"depth": 2, "depth_token_only": 1},  # a function in place of patterns
    "test_mambaout": {},
}


def branched(plain: nn.Module) -> BranchedBackbone:
    names = list(layers(plain))
    split = random_split(names, 1)
    bare = [name for name in names if name.endswith(("pos_embed", "cls_token", "bias_table"))]
    private = rs.Split.private(bare, TASKS)
    return rs.branch(plain, rs.Split(TASKS, {**split.layers, **private.layers}))


def create(name: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, num_classes=0, **MODELS[name])
    return model


@pytest.fixture(params=list(MODELS), scope="module")
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, BranchedBackbone]:
    plain = create(request.param)
    return plain, branched(plain)


def settings(model: nn.Module, groups: Any) -> dict[str, tuple[float, float]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["weight_decay"], group.get("lr_scale", 1.0))
        for group in groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"filter_bias_and_bn": False},
        {"layer_decay": 0.7},
        {"layer_decay": 0.5, "filter_bias_and_bn": False},
    ],
    ids=str,
)
def test_every_copy_is_optimised_as_its_plain_tensor(
    pair: tuple[nn.Module, BranchedBackbone], options: dict[str, Any]
) -> None:
    plain, network = pair
    expected, found = (
        settings(
            model, create_optimizer_v2(model, "adamw", weight_decay=0.1, **options).param_groups
        )
        for model in (plain, network)
    )
    first = first_names(plain)
    assert len(found) > len(expected)
    for path, values in found.items():
        assert values == expected[first[plain_name(path)]], path
    assert {first[plain_name(path)] for path in found} == set(expected)


@pytest.mark.parametrize("coarse", [False, True])
def test_every_copy_is_in_the_group_of_its_plain_tensor(
    pair: tuple[nn.Module, BranchedBackbone], coarse: bool
) -> None:
    plain, network = pair
    expected = group_parameters(plain, plain.group_matcher(coarse), reverse=True)  # type: ignore[operator]
    found = group_parameters(network, network.group_matcher(coarse), reverse=True)
    first = first_names(plain)
    assert found == {path: expected[first[plain_name(path)]] for path in found}
    modules = group_modules(plain, plain.group_matcher(coarse), reverse=True)  # type: ignore[operator]
    copies = group_modules(network, network.group_matcher(coarse), reverse=True)
    order = {path: modules[plain_name(path)] for path in copies if plain_name(path) in modules}
    for path, other in zip(order, list(order)[1:], strict=False):
        assert (order[path] < order[other]) == (copies[path] < copies[other])


def test_what_the_plain_model_says_of_itself_is_kept(
    pair: tuple[nn.Module, BranchedBackbone],
) -> None:
    plain, network = pair
    for name in (
        *("default_cfg", "pretrained_cfg", "num_classes", "num_features", "head_hidden_size"),
        *("feature_info", "global_pool", "in_chans", "grad_checkpointing"),
    ):
        value = getattr(plain, name, None)
        if value is not None and not isinstance(value, nn.Module):
            assert getattr(network, name) == value, name
    assert resolve_model_data_config(network) == resolve_model_data_config(plain)
    assert resolve_model_data_config(copy.deepcopy(network)) == resolve_model_data_config(plain)


def test_position_embeddings_of_every_task_are_not_decayed() -> None:
    plain = create("test_vit")
    network = rs.branch(plain, rs.Split.private(["pos_embed", "blocks.0.norm1"], ["a*", "[b]"]))
    assert network.no_weight_decay() >= {"shared.cls_token"}
    groups = create_optimizer_v2(network, "sgd", lr=0.1, weight_decay=0.1).param_groups
    decayed = {path for path, (decay, _) in settings(network, groups).items() if decay}
    names = {plain_name(path) for path in decayed}
    assert not names & {"pos_embed", "cls_token"}
    assert "blocks.0.attn.qkv.weight" in names
    ordinary = rs.branch(plain, rs.Split.private(["pos_embed"], ["seg", "depth"]))
    assert ordinary.no_weight_decay() >= {
        *("branches.seg.pos_embed", "branches.depth.pos_embed", "shared.cls_token")
    }


def test_a_model_without_habits_has_none_when_branched() -> None:
    plain = toys.Residual()
    network = rs.branch(plain, rs.Split.private(["body"], ["a", "b"]))
    assert network.no_weight_decay() == set()
    assert not hasattr(network, "default_cfg")
    expected = settings(plain, param_groups_layer_decay(plain, layer_decay=0.5))
    found = settings(network, param_groups_layer_decay(network, layer_decay=0.5))
    assert found == {path: expected[plain_name(path)] for path in found}


def model_of(network: BranchedBackbone) -> MultiTaskModel:
    heads = {task: nn.Linear(int(network.num_features), 2) for task in network.tasks}  # type: ignore[arg-type]
    return MultiTaskModel(network, heads, {})


def test_heads_are_optimised_as_the_plain_models(pair: tuple[nn.Module, BranchedBackbone]) -> None:
    plain, network = pair
    model = model_of(network)
    plain = copy.deepcopy(plain)
    plain.reset_classifier(2)  # type: ignore[operator]
    for options in ({}, {"layer_decay": 0.7}):
        expected, found = (
            settings(m, create_optimizer_v2(m, "adamw", weight_decay=0.1, **options).param_groups)
            for m in (plain, model)
        )
        first = first_names(plain)
        for path, values in found.items():
            if path.startswith("backbone."):
                name = first[plain_name(path.partition(".")[2])]
                assert values == expected[name], path
        for task in network.tasks:
            assert found[f"heads.{task}.weight"] == (0.1, 1.0)
            assert found[f"heads.{task}.bias"] == (0.0, 1.0)
    assert resolve_model_data_config(model) == resolve_model_data_config(plain)
    assert model.num_features == network.num_features
    assert model.get_classifier() is model.heads


def test_the_classifier_is_that_of_all_tasks_or_refused() -> None:
    plain = timm.create_model("test_resnet", num_classes=5, **SMALL)
    network = rs.branch(plain, rs.Split.private(["layer1.0.conv1"], ["a", "b"]))
    found = network.get_classifier()
    assert isinstance(found, nn.Linear)
    assert found is network.get_submodule("shared.fc")
    assert isinstance(branched(create("test_resnet")).get_classifier(), nn.Identity)
    with pytest.raises(SplitError, match=r"'fc' has 2 copies. Ask single\(task\)"):
        rs.branch(plain, rs.Split.private(["fc"], ["a", "b"])).get_classifier()


def test_what_a_graph_cannot_do_is_refused() -> None:
    network = branched(create("test_resnet"))
    with pytest.raises(BackboneError, match=r"set before it is branched"):
        network.reset_classifier(10)


def test_layers_of_a_branched_network_have_the_plain_names_and_all_copies() -> None:
    torch.manual_seed(0)
    plain = create("test_resnet")
    network = branched(plain)
    found = rs.layers(network)
    assert list(found) == list(rs.layers(plain))
    everything = [parameter for parameters in found.values() for parameter in parameters]
    assert {id(p) for p in everything} == {id(p) for p in network.parameters()}
    assert len({id(p) for p in everything}) == len(everything)
    rows, plain_rows = describe(network), describe(plain)
    assert [row.type for row in rows] == [row.type for row in plain_rows]
    assert sum(row.n_parameters for row in rows) == sum(p.numel() for p in network.parameters())
    assert list(rs.layers(model_of(network))) == list(found)


def test_gramians_of_a_branched_network_are_those_of_its_paths() -> None:
    torch.manual_seed(0)
    network = branched(create("test_resnet").double()).eval()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    losses = [output.square().mean() for output in network(x).values()]
    found = rs.gramians(losses, rs.layers(network))
    paths = [network.single(task) for task in TASKS]
    own = [
        {
            name: torch.cat([g.flatten() for g in torch.autograd.grad(loss, ps, retain_graph=True)])
            for name, ps in layers(path).items()
        }
        for path in paths
        for loss in [path(x).square().mean()]
    ]
    for index, (name, blocks) in enumerate(network.layers().items()):
        group = {task: number for number, block in enumerate(blocks) for task in block.tasks}
        for i, task in enumerate(TASKS):
            for j, other in enumerate(TASKS):
                shared = group[task] == group[other]
                expected = own[i][name] @ own[j][name] if shared else torch.tensor(0.0)
                assert found[index, i, j].item() == pytest.approx(expected.item(), rel=1e-9), name
