"""Pyramids of the plain model: what tasks get, what they share, and what stays plain."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.utils import _pytree as pytree

import recon_search as rs
from recon_search.errors import BackboneError
from recon_search.graph.analysis import analyse
from recon_search.graph.anatomy import dissect
from recon_search.graph.branch import branch
from recon_search.graph.cost import cost_of
from recon_search.graph.exported import expect_like
from recon_search.graph.layers import backbone_digest, layers
from recon_search.graph.trace import trace
from tests.graph.families import FAMILIES, SINGLE_PRECISION, make_family
from tests.graph.laws import TASKS, assert_close, check_paths, random_split, randomise, silence
from tests.graph.models import images

FAST = ("vision_transformer", "resnet")
TOLERANCES = {**SINGLE_PRECISION, "vision_transformer": 1e-6}  # interpolates in float32
MIXED = {"a": "vector", "b": "pyramid", "c": "pyramid"}


def families() -> list[Any]:
    slow = [f for f in FAMILIES if f not in FAST]
    return [*FAST, *(pytest.param(family, marks=pytest.mark.slow) for family in slow)]


REFUSED = {"gemma4_vit": "torch.export: GuardOnDataDependentSymNode"}
"""Families whose pyramid cannot be followed, and why."""


def classifier() -> nn.Module:
    """A small ResNet with a classifier, which a pyramid does not use."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", channels=(8, 8, 16, 16), num_classes=5).double()
    model.default_cfg = {**model.default_cfg, "input_size": (3, 32, 32)}
    randomise(model)
    return model


@pytest.mark.parametrize("call", ["pyramid", MIXED], ids=["pyramid", "mixed"])
@pytest.mark.parametrize("family", families())
def test_every_path_equals_the_pyramid_or_vector_of_a_plain_model(family: str, call: Any) -> None:
    _, size, _ = FAMILIES[family]
    dtype = torch.float32 if family == "gemma4_vit" else torch.float64
    tolerance = TOLERANCES.get(family, 1e-8)
    torch.manual_seed(0)
    model = make_family(family, num_classes=0 if family == "pnasnet" else 5).to(dtype)
    silence(model)
    randomise(model)
    split = random_split(list(layers(model)))
    if family in REFUSED:
        with pytest.raises(BackboneError, match=REFUSED[family]):
            branch(model, split, call=call)
        return
    network = branch(model, split, call=call)
    exported = network.blueprint.graphs[True].find_nodes(op="call_function", target=expect_like)
    side = (size, size) if not exported else exported[0].args[1][1:]
    x = torch.randn(3, 3, *side, dtype=dtype)
    randomise(network, 1)
    with torch.no_grad():
        for task, output in network.eval()(x).items():
            expected = network.call_of(task).apply(network.single(task), x)
            assert isinstance(output, list) == (network.reads(task) == "pyramid")
            for found, plain in zip([*output], [*expected], strict=True):
                assert_close(found, plain, tolerance, f"output of {task}")
    check_paths(network.train(), x, tolerance)


def test_a_cnn_gives_the_last_feature_of_each_size_and_a_vit_four_at_even_distances() -> None:
    network = branch(classifier(), rs.Split(("a",), {}), call="pyramid")
    assert [tuple(m.shape[1:]) for m in network(images())["a"]] == [
        (32, 16, 16), (8, 8, 8), (8, 4, 4), (64, 2, 2), (16, 1, 1)
    ]  # fmt: skip
    vit = timm.create_model("test_vit", img_size=64, depth=12, num_classes=0)
    found = branch(vit, rs.Split(("a",), {}), call="pyramid")
    assert found.blueprint.call.indices == (2, 5, 8, 11)
    assert [tuple(m.shape) for m in found(torch.randn(2, 3, 64, 64))["a"]] == [(2, 64, 4, 4)] * 4
    shallow = timm.create_model("test_vit", img_size=64, depth=3, num_classes=0)
    assert trace(shallow, call="pyramid").call.indices == (0, 1, 2)


def test_output_stride_keeps_the_maps_large() -> None:
    model = timm.create_model("resnet18", channels=[4, 4, 8, 8], output_stride=8, num_classes=0)
    x = torch.randn(2, 3, 64, 64)
    network = branch(model, rs.Split(("a",), {}), call="pyramid", example=x)
    assert [m.shape[-1] for m in network(x)["a"]] == [32, 16, 8]
    assert network.blueprint.call.indices == (0, 1, 4)


STRIDED = {
    "test_resnet": {"channels": (8, 8, 16, 16)},
    "test_efficientnet": {},
    "test_convnext": {},
    "test_byobnet": {},
}
"""Networks that timm makes with larger maps, and how they are made small."""


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("name", STRIDED)
def test_a_split_network_of_any_output_stride_is_timms(name: str, stride: int) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, output_stride=stride, num_classes=0, **STRIDED[name]).double()
    silence(model)
    randomise(model)
    known = list(layers(model))
    private, grouped = (("a",), ("b",), ("c",)), (("a", "c"), ("b",))
    split = rs.Split(TASKS, {known[1]: grouped, known[len(known) // 2]: private})
    x = images(32)
    network = branch(model, split, call="pyramid", example=x)
    randomise(network, 1)
    with torch.no_grad():
        for task, maps in network.eval()(x).items():
            plain = timm.create_model(name, output_stride=stride, num_classes=0, **STRIDED[name])
            plain.double().eval().load_state_dict(network.task_state_dict(task))
            expected = plain.forward_intermediates(x, intermediates_only=True)
            assert max(32 // own.shape[-1] for own in maps) == stride
            for own, place in zip(maps, network.blueprint.call.indices, strict=True):
                assert torch.equal(own, expected[place])
    check_paths(network.train(), x)


@pytest.mark.parametrize(("levels", "indices"), [([1, -1], (1, 4)), ((0,), (0,)), ([2], (2,))])
def test_levels_may_be_chosen_and_what_lies_behind_them_is_not_run(levels, indices) -> None:
    network = branch(classifier(), rs.Split(("a",), {}), call="pyramid", levels=levels)
    assert network.blueprint.call.indices == indices
    last = [f"layer{n}" for n in range(indices[-1] + 1, 5)]
    assert not [name for name in network.layers() if name.startswith((*last, "fc"))]
    before = network.task_state_dict("a")["layer4.0.bn1.running_mean"].clone()
    network.train()(images())
    after = network.task_state_dict("a")["layer4.0.bn1.running_mean"]
    assert torch.equal(before, after) == (indices[-1] < 4)


def test_names_digest_and_weights_are_those_of_the_plain_model() -> None:
    model = classifier()
    split = rs.Split.private(["layer1.0.conv1", "fc"], TASKS)
    network = branch(model, split, call="pyramid")
    plain = network.task_state_dict("b")
    assert plain.keys() == model.state_dict().keys()
    assert all(torch.equal(plain[name], value) for name, value in model.state_dict().items())
    assert backbone_digest(network.single("b")) == backbone_digest(model)
    assert analyse(model, call="pyramid").digest == backbone_digest(model)
    other = classifier()
    randomise(other, 3)
    network.load_task_state_dict("b", other.state_dict())
    network.eval(), other.eval()
    for found, expected in zip(
        network(images())["b"], other.forward_intermediates(images(), intermediates_only=True),
        strict=True,
    ):  # fmt: skip
        assert torch.equal(found, expected)


def test_layers_come_in_the_order_of_the_forward_pass_without_those_a_pyramid_leaves_out() -> None:
    visformer = timm.create_model("visformer_tiny", img_size=64, num_classes=5)
    for model in (classifier(), visformer):
        network = branch(model, rs.Split(("a", "b"), {}), call="pyramid")
        known = list(layers(model))
        assert list(network.layers()) == [name for name in known if name in network.layers()]
        assert set(known) - set(network.layers()) <= {"fc", "norm", "head"}
        assert len(known) > len(network.layers())


def test_a_split_found_on_one_kind_of_task_is_valid_on_the_other() -> None:
    """Layers that nobody reads through stay shared; others read through copies of their own."""
    model = classifier()
    digest = {"digest": backbone_digest(model)}
    split = rs.Split(
        TASKS, {"fc": (("a",), ("b",), ("c",)), "conv1.0": (("a", "b"), ("c",))}, digest
    )
    dense = branch(model, split, call="pyramid")
    assert dense.blueprint.layout.groups("fc.weight") == (TASKS,)
    assert dense.split == split
    pooled = branch(model, split)
    assert len(pooled.layers()["fc"]) == 3
    mixed = branch(model, split, call={"a": "vector", "b": "pyramid", "c": "vector"})
    assert mixed.blueprint.layout.groups("fc.weight") == (("a", "b"), ("c",))
    for network in (dense, mixed):
        again = branch(model, rs.Split.private([*network.layers()], TASKS), call="pyramid")
        assert len(again.layers()["conv1.0"]) == 3


def test_a_mixed_network_runs_its_trunk_once_and_each_task_only_what_it_reads() -> None:
    model = classifier()
    known = analyse(model, call=MIXED)
    layout = known.lay_out(rs.Split(TASKS, {}))
    alone = analyse(model)
    plain = cost_of(alone.trace, alone.lay_out(rs.Split(TASKS, {})), alone.inputs)
    both = cost_of(known.trace, layout, known.inputs)
    assert both.total_flops == plain.total_flops
    assert both.flops[("a",)] == 2 * 16 * 5  # the classifier
    rows = {row.layers[0]: row.runs for row in dissect(known, rs.Split(TASKS, {})).layers}
    assert rows["fc"] == (("a",),)
    assert rows["conv1.0"] == (TASKS,)
    assert known.flops_of(rs.Split(TASKS, {})) == 1
    fc = rs.Split(TASKS, {"fc": (("a",), ("b",), ("c",))})
    assert known.flops_of(fc) == 1, "those who do not use a layer do not run it"
    network = branch(model, rs.Split(TASKS, {}), call=MIXED)
    calls = []
    network.shared.fc.register_forward_hook(lambda *_: calls.append("fc"))
    network.shared.conv1.get_submodule("0").register_forward_hook(lambda *_: calls.append("conv1"))
    network(images(), ["b"])
    assert calls == ["conv1"]
    network(images())
    assert calls == ["conv1", "conv1", "fc"]


def test_running_statistics_behind_the_pyramid_are_those_of_the_vectors_alone() -> None:
    """EfficientNet has a BatchNorm behind its last map."""
    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet", num_classes=3).double()
    split = rs.Split.private(["conv_stem"], TASKS)
    network = branch(model, split, call=MIXED).train()
    randomise(network, 1)
    groups = network.blueprint.layout.groups("bn2.running_mean")
    assert groups == (TASKS,), "only one task runs it"
    assert len(network.blueprint.layout.groups("bn1.running_mean")) == 3
    plain = network.single("a").train()
    x = images(64)
    network(x), plain(x)
    assert torch.equal(network.task_state_dict("a")["bn2.running_mean"], plain.bn2.running_mean)


@pytest.mark.parametrize("call", ["pyramid", MIXED], ids=["pyramid", "mixed"])
def test_copies_pickles_and_further_splits_keep_what_tasks_read(call) -> None:
    network = branch(classifier(), rs.Split.private(["layer2.0.conv1"], TASKS), call=call).eval()
    randomise(network, 2)
    x = images()
    further = branch(network, rs.Split.private(["layer2.0.conv1", "layer3.0.bn1"], TASKS))
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), further):
        assert [twin.reads(task) for task in TASKS] == [network.reads(task) for task in TASKS]
        for tasks in (None, ["b"]):
            found, expected = twin(x, tasks), network(x, tasks)
            for task, output in expected.items():
                assert all(map(torch.equal, [*found[task]], [*output])), task


def test_a_pyramid_is_exported_with_a_dynamic_batch() -> None:
    network = branch(classifier(), rs.Split.private(["layer1.0.conv1"], TASKS), call=MIXED).eval()
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(network, (images(),), dynamic_shapes=shapes).module()
    found, expected = program(images(batch=3)), network(images(batch=3))
    torch.testing.assert_close(found, expected)


class Sliced(nn.Module):
    """Calls slices of a `Sequential`, as VovNet does, which are no modules of its own."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(4)
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), norm, nn.Dropout(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.stem[-2:](self.stem[:2](x))


def test_slices_of_a_sequential_are_followed() -> None:
    model = Sliced()
    network = branch(model, rs.Split.private(["stem.0", "stem.2"], ("a", "b")))
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(network.eval()(x)["b"], model.eval()(x))
    check_paths(branch(model.eval(), rs.Split.private(["stem.0"], ("a", "b"))), x, 1e-6)
    assert not torch.equal(*(network.train()(x)["b"] for _ in range(2))), "dropout drops"


class NoPyramid(nn.Module):
    """No model of timm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).mean((2, 3))


class Failing(NoPyramid):
    def forward_intermediates(self, x: torch.Tensor, **_: Any) -> list[torch.Tensor]:
        raise RuntimeError("no luck")


class Flat(NoPyramid):
    def forward_intermediates(self, x: torch.Tensor, **_: Any) -> list[torch.Tensor]:
        return [self(x)]


class Overwriting(NoPyramid):
    """Its one pass overwrites the map that it gave."""

    def forward_intermediates(self, x: torch.Tensor, intermediates_only=False, **_: Any) -> Any:
        y = self.conv(x)
        return [y] if intermediates_only else (y.relu_(), [y])

    def forward_head(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


class RunsMore(NoPyramid):
    """Its pyramid runs a norm that no map depends on, and moves its map by a layer in place."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)
        self.shift = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x) + self.shift(x)).mean((2, 3))

    def forward_intermediates(self, x: torch.Tensor, **_: Any) -> Any:
        y = self.conv(x)
        y.add_(self.shift(x))
        self.norm(y)
        return [y]


def test_what_timm_runs_and_no_map_depends_on_is_no_layer_and_is_not_run() -> None:
    x = images()
    model = RunsMore().double()
    randomise(model)
    network = branch(model, rs.Split.private(["norm", "shift"], TASKS), call="pyramid", example=x)
    assert list(network.layers()) == ["conv", "shift"]
    found = network.train()(x)
    assert torch.equal(found["b"][0], model.conv(x) + model.shift(x))
    assert int(network.task_state_dict("b")["norm.num_batches_tracked"]) == 0
    loss = {task: maps[0].square().mean() for task, maps in found.items()}
    assert rs.gramians(loss, network.layer_parameters()).shape == (2, 3, 3)


class ByShape(nn.Module):
    """Branches on a shape, which torch.fx cannot follow and torch.export can."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.forward_intermediates(x)[0]).mean((2, 3))

    def forward_head(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))

    def forward_intermediates(
        self, x: torch.Tensor, intermediates_only: bool = True, **_: Any
    ) -> Any:
        y = self.norm(self.conv(x)) if x.shape[1] == 3 else x
        y = y * 2 if x.shape[2] > 4 else y
        return [y] if intermediates_only else (self.last(y), [y])


@pytest.mark.parametrize("call", ["pyramid", MIXED], ids=["pyramid", "mixed"])
def test_exported_graphs_update_the_statistics_of_what_is_needed(call) -> None:
    x = images()
    model = ByShape().double()
    network = branch(model, rs.Split.private(["conv"], TASKS), call=call, example=x).train()
    randomise(network, 1)
    check_paths(network, x)
    for task in TASKS:
        state = network.task_state_dict(task)
        counts = [int(state[f"{name}.num_batches_tracked"]) for name in ("norm", "last")]
        assert counts == [1, 0 if call == "pyramid" else 1]
    with pytest.raises(BackboneError, match="takes inputs of shape"):
        network(images(16))


@pytest.mark.parametrize("call", ["pyramid", MIXED], ids=["pyramid", "mixed"])
def test_a_checkpointed_pyramid_learns_the_same_bits(call) -> None:
    network = branch(classifier(), rs.Split.private(["layer1.0.conv1"], TASKS), call=call).train()
    twin = copy.deepcopy(network)
    twin.set_grad_checkpointing(True)
    for each in (network, twin):
        outputs = pytree.tree_leaves(each(images()))
        torch.autograd.backward(torch.stack([part.square().mean() for part in outputs]).sum())
    for name, parameter in network.named_parameters():
        other = twin.get_parameter(name).grad
        assert (parameter.grad is None) == (other is None) == (call == "pyramid" and ".fc." in name)
        assert parameter.grad is None or torch.equal(parameter.grad, other), name
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, twin.state_dict()[name]), name


@pytest.mark.parametrize("call", ["pyramid", MIXED], ids=["pyramid", "mixed"])
def test_a_pyramid_is_compiled_whole(call) -> None:
    network = branch(classifier(), rs.Split.private(["layer1.0.conv1"], TASKS), call=call).eval()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images()), network(images()))


@pytest.mark.parametrize(
    ("make", "call", "levels", "message"),
    [
        (NoPyramid, "pyramid", None, "NoPyramid has none"),
        (Failing, "pyramid", None, "Failing fails .RuntimeError: no luck"),
        (Flat, "pyramid", None, r"must be maps .* Flat gives \[2\] dimensions"),
        (Overwriting, MIXED, None, "what Overwriting gives is another then"),
        (classifier, "pyramid", [5], r"among the 5 intermediate features .* got \[5\]"),
        (classifier, "pyramid", [-6], r"got \[-6\]"),
        (classifier, "pyramid", [2, 1], r"each once and in order, got \[2, 1\]"),
        (classifier, "pyramid", [1, -4], r"got \[1, -4\]"),
        (classifier, "pyramid", [], r"got \[\]"),
        (classifier, "vector", None, "must be forward, pyramid, or .* got 'vector'"),
        (classifier, {"a": "vector"}, None, r"each task of \['a', 'b', 'c'\], got it for \['a'\]"),
        (classifier, dict.fromkeys(TASKS, "map"), None, "a vector or a pyramid, got 'map'"),
    ],
)
def test_what_gives_no_pyramid_is_refused_in_one_line(make, call, levels, message) -> None:
    with pytest.raises(BackboneError, match=message) as caught:
        branch(make(), rs.Split(TASKS, {}), call=call, levels=levels)
    assert "\n" not in str(caught.value)


def test_what_overwrites_its_maps_goes_where_all_tasks_read_alike() -> None:
    model = Overwriting().double()
    x = images()
    network = branch(model, rs.Split(TASKS, {}), call="pyramid", example=x)
    assert torch.equal(network(x)["b"][0], model.conv(x))
