"""Modules changed after branching: a task's path is what it computes now, or refused by name."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import timm
import torch
from timm.layers import freeze_batch_norm_2d, unfreeze_batch_norm_2d
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import recon_search as rs
from recon_search.errors import BackboneError, SplitError
from recon_search.graph.branched import BranchedBackbone
from recon_search.graph.layers import layers
from tests.graph.laws import TASKS, assert_close, check_paths, random_split, randomise
from tests.graph.models import images, small_resnet


@pytest.fixture
def network(backbone: nn.Module) -> BranchedBackbone:
    """A network with split layers, shared ones, and shared ones that several branches call."""
    network = rs.branch(backbone, random_split(list(layers(backbone)), 1))
    randomise(network, 1)
    with torch.no_grad():
        network.train()(images())  # statistics of their own
    assert network._aliases
    return network


def modules(network: nn.Module, kind: type[nn.Module]) -> Iterator[tuple[nn.Module, str]]:
    for name, module in list(network.named_modules()):
        if isinstance(module, kind):
            parent, _, child = name.rpartition(".")
            yield network.get_submodule(parent), child


def each(kind: type[nn.Module], change: Callable[[nn.Module], object]) -> Callable[..., object]:
    def run(network: nn.Module) -> None:
        for parent, child in modules(network, kind):
            change(parent.get_submodule(child))

    return run


def in_place_of(kind: type[nn.Module], make: Callable[[Any], nn.Module]) -> Callable[..., object]:
    def run(network: nn.Module) -> None:
        for parent, child in modules(network, kind):
            parent.add_module(child, make(parent.get_submodule(child)))

    return run


def frozen(network: nn.Module) -> None:
    freeze_batch_norm_2d(network)
    for parameter in network.parameters():
        parameter.requires_grad_()


def thawed(network: nn.Module) -> None:
    freeze_batch_norm_2d(network)
    unfreeze_batch_norm_2d(network)


def pruned_for_good(module: nn.Module) -> None:
    prune.l1_unstructured(module, "weight", 0.5)
    prune.remove(module, "weight")


def pruned_twice(module: nn.Module) -> None:
    prune.l1_unstructured(module, "weight", 0.3)
    prune.ln_structured(module, "weight", 0.3, n=2, dim=0)


def weight_normed(module: nn.Module) -> None:
    with pytest.warns(FutureWarning, match="deprecated"):
        nn.utils.weight_norm(module)


class Twice(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def twice(conv: nn.Conv2d) -> nn.Module:
    new = Twice(conv.in_channels, conv.out_channels, 1, bias=False)
    new.__dict__.update(conv.__dict__)
    return new


# What keeps every tensor, as it is or computed from others.
KEEPING: dict[str, Callable[[nn.Module], object]] = {
    "frozen": frozen,
    "thawed": thawed,
    "synchronised": nn.SyncBatchNorm.convert_sync_batchnorm,
    "pruned": each(nn.Conv2d, lambda m: prune.l1_unstructured(m, "weight", 0.5)),
    "pruned twice": each(nn.Conv2d, pruned_twice),
    "pruned for good": each(nn.Conv2d, pruned_for_good),
    "pruned norms": each(nn.BatchNorm2d, lambda m: prune.random_unstructured(m, "bias", 0.5)),
    "weight norm": each(nn.Conv2d, parametrizations.weight_norm),
    "spectral norm": each(nn.Conv2d, parametrizations.spectral_norm),
    "old weight norm": each(nn.Conv2d, weight_normed),
    "old spectral norm": each(nn.Conv2d, nn.utils.spectral_norm),
    "no activations": in_place_of(nn.ReLU, lambda m: nn.Identity()),
    "other activations": in_place_of(nn.ReLU, lambda m: nn.GELU()),
}
COMPUTED = {"pruned", "pruned twice", "pruned norms", "weight norm", "spectral norm"}
COMPUTED |= {"old weight norm", "old spectral norm"}


@pytest.mark.parametrize("how", list(KEEPING))
def test_a_path_is_what_it_computes_now(network: BranchedBackbone, how: str) -> None:
    before = {task: network.task_state_dict(task) for task in TASKS}
    KEEPING[how](network)
    network.eval()(images())
    with torch.no_grad():  # the attributes that hooks set are those of the last call
        for parameter in network.parameters():
            parameter.mul_(1.1)
    expected = {task: output.detach() for task, output in network(images()).items()}
    for task in TASKS:
        state = network.task_state_dict(task)
        assert set(state) == set(before[task])
        single = network.single(task)
        assert not single.training
        assert_close(single(images()), expected[task], 1e-9, f"{how} {task}")
        if not how.endswith("activations"):
            plain = small_resnet().eval()
            plain.load_state_dict(state)
            assert_close(plain(images()), expected[task], 1e-9, f"{how} {task}")
    assert list(network.layers()) == list(rs.layers(small_resnet()))
    mine = {id(p) for blocks in network.layers().values() for b in blocks for p in b.parameters}
    reached = torch.autograd.grad(
        sum(output.sum() for output in network(images()).values()),  # type: ignore[arg-type]
        list(network.parameters()),
        allow_unused=True,
    )
    for (name, parameter), gradient in zip(network.named_parameters(), reached, strict=True):
        assert gradient is None or id(parameter) in mine, name


@pytest.mark.parametrize("how", ["frozen", "thawed", "pruned for good"])
def test_a_changed_path_trains_as_the_plain_model_does(network: BranchedBackbone, how: str) -> None:
    KEEPING[how](network)
    network.train()
    for task in TASKS:
        twin = copy.deepcopy(network)
        assert_close(twin.single(task)(images()), twin(images())[task], 1e-9, task)


@pytest.mark.parametrize("how", list(KEEPING))
def test_a_changed_network_is_saved_and_loaded(network: BranchedBackbone, how: str) -> None:
    twin = copy.deepcopy(network)
    KEEPING[how](network)
    KEEPING[how](twin)
    randomise(network, 5)
    twin.load_state_dict(network.state_dict())
    outputs, expected = twin.eval()(images()), network.eval()(images())
    assert all(torch.equal(outputs[task], expected[task]) for task in TASKS)
    single, double = network.float()(images().float()), network.double()(images())
    for task in TASKS:
        assert_close(single[task], double[task], 1e-3, task)


@pytest.mark.parametrize("how", list(KEEPING))
def test_weights_are_loaded_where_they_are_kept(network: BranchedBackbone, how: str) -> None:
    plain = small_resnet().eval()
    randomise(plain, 7)
    KEEPING[how](network)
    if how in COMPUTED:
        with pytest.raises(BackboneError, match=r"kept, '.*(weight|bias)' is computed.*undo"):
            network.load_task_state_dict("a", plain.state_dict())
        return
    for task in TASKS:
        network.load_task_state_dict(task, plain.state_dict())
    if not how.endswith("activations"):
        for output in network.eval()(images()).values():
            assert_close(output, plain(images()), 1e-9, how)


@pytest.mark.parametrize("how", list(KEEPING))
def test_a_changed_network_is_split_further_or_refused(network: BranchedBackbone, how: str) -> None:
    KEEPING[how](network)
    finer = rs.Split(TASKS, {**network.split.layers, "layer4.0.conv2": tuple((t,) for t in TASKS)})
    if how in COMPUTED:
        with pytest.raises(BackboneError, match=r"split further, '.*' is computed.*split first"):
            rs.branch(network, finer)
        return
    if how == "frozen":
        with pytest.raises(SplitError, match=r"froze 'conv1\.4'"):
            rs.branch(network, finer)
        return
    network.eval()
    outputs, expected = rs.branch(network, finer)(images()), network(images())
    assert all(torch.equal(outputs[task], expected[task]) for task in TASKS)


def test_a_module_that_computes_otherwise_stays(network: BranchedBackbone) -> None:
    in_place_of(nn.Conv2d, twice)(network)
    network.eval()
    for task in TASKS:
        assert_close(network.single(task)(images()), network(images())[task], 1e-9, task)


class Wrapped(nn.Module):
    """A layer and a low-rank term beside it, as peft has it."""

    def __init__(self, base: nn.Conv2d) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Conv2d(base.in_channels, 1, 1).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 0 * self.down(x).mean()  # type: ignore[no-any-return]


class Forwarding(Wrapped):
    """One that shows the weight of its layer as its own."""

    @property
    def weight(self) -> Tensor:
        return self.base.weight


class Adapted(nn.Conv2d):
    """A layer with a low-rank term inside, as loralib has it."""

    def __init__(self, base: nn.Conv2d) -> None:
        super().__init__(base.in_channels, base.out_channels, 1)
        self.__dict__.update(copy.deepcopy(base).__dict__)
        self.lora_A = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.lora_A


LOSING = {
    "wrapped": (in_place_of(nn.Conv2d, Wrapped), r"which has no '(conv1|layer).*\.(base|down)"),
    "forwarding": (in_place_of(nn.Conv2d, Forwarding), r"which has no '.*\.(base|down)"),
    "adapted": (in_place_of(nn.Conv2d, Adapted), r"which has no '.*\.lora_A' \(of a Adapted\)"),
    "gone": (in_place_of(nn.Conv2d, lambda m: nn.Identity()), r"'conv1.0.weight' is no longer at"),
    "activation": (
        in_place_of(nn.ReLU, lambda m: nn.PReLU().double()),
        r"which has no '.*weight' \(of a PReLU\)",
    ),
}


@pytest.mark.parametrize("how", list(LOSING))
def test_what_no_plain_model_could_hold_is_refused_by_name(
    network: BranchedBackbone, how: str
) -> None:
    change, message = LOSING[how]
    change(network)
    finer = rs.Split.private([*network.blueprint.layers], TASKS)
    for ask in (
        lambda: network.task_state_dict("b"),
        lambda: network.load_task_state_dict("b", small_resnet().state_dict()),
        lambda: network.single("b"),
        lambda: rs.branch(network, finer),
    ):
        with pytest.raises(BackboneError, match=rf"{message}.*plain backbone and branch") as caught:
            ask()
        assert "\n" not in str(caught.value)
    if how in ("wrapped", "adapted"):
        found = {id(p) for parameters in rs.layers(network).values() for p in parameters}
        assert {id(p) for n, p in network.named_parameters() if "down" in n or "lora" in n} <= found
        twin = copy.deepcopy(network)
        twin.load_state_dict(network.state_dict())
        assert torch.equal(twin.eval()(images())["a"], network.eval()(images())["a"])


@pytest.mark.parametrize("change", [LOSING["wrapped"][0], frozen])
def test_changed_before_branching_it_works(change: Callable[[nn.Module], object]) -> None:
    plain = small_resnet()
    change(plain)
    network = rs.branch(plain, random_split(list(layers(plain)), 1))
    randomise(network, 1)
    check_paths(network, images())
    assert set(network.task_state_dict("a")) == set(plain.state_dict())


def test_a_changed_network_is_pickled(network: BranchedBackbone) -> None:
    for how in ("frozen", "pruned"):
        KEEPING[how](network)
    twin = pickle.loads(pickle.dumps(network.eval()))
    assert torch.equal(twin(images())["b"], network(images())["b"])


def test_a_tensor_that_a_function_reads_may_be_parametrised() -> None:
    class Halved(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / 2

    torch.manual_seed(0)
    plain = timm.create_model("test_vit", num_classes=0, img_size=32).double()
    network = rs.branch(plain, rs.Split.private(["pos_embed"], ["a", "b"])).eval()
    randomise(network)
    for task in ("a", "b"):
        parametrize.register_parametrization(
            network.branches.get_submodule(task), "pos_embed", Halved()
        )
    expected = network(images())["a"]
    assert_close(network.single("a")(images()), expected, 1e-9, "a")
    plain.eval().load_state_dict(network.task_state_dict("a"))
    assert_close(plain(images()), expected, 1e-9, "a")
    (block, other) = network.layers()["pos_embed"]
    assert block.parameters[0] is not other.parameters[0]
    assert [p.shape for p in block.parameters] == [plain.pos_embed.shape]  # type: ignore[union-attr]


def test_frozen_norms_with_activations_are_read() -> None:
    torch.manual_seed(0)
    plain = timm.create_model("test_efficientnet", num_classes=0).double()
    network = rs.branch(plain, random_split(list(layers(plain)), 1))
    randomise(network)
    freeze_batch_norm_2d(network)
    network.train()
    for task in TASKS:
        assert_close(network.single(task)(images()), network(images())[task], 1e-9, task)
        plain.eval().load_state_dict(network.task_state_dict(task))
        assert_close(plain(images()), network.eval()(images())[task], 1e-9, task)
