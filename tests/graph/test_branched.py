"""A branched network in use: converted, saved, compiled, wrapped, and still exact on every path."""

from __future__ import annotations

import copy
import gc
import linecache
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from recon_search.errors import SplitError
from recon_search.graph.branch import branch
from recon_search.graph.branched import BranchedBackbone
from recon_search.graph.layers import layers
from recon_search.graph.split import Split
from recon_search.model.network import MultiTaskModel
from tests import toys
from tests.graph.laws import TASKS, assert_close, check_paths, random_split, randomise
from tests.graph.models import images, small_resnet


@pytest.fixture
def network(backbone: nn.Module) -> BranchedBackbone:
    """A network with shared layers after forks, so that modules share their weights."""
    network = branch(backbone, random_split(list(layers(backbone)), 1))
    randomise(network, 1)
    assert network._aliases
    return network


@pytest.fixture
def late(backbone: nn.Module) -> BranchedBackbone:
    """A network that forks near its end, for what takes long."""
    network = branch(backbone, Split(TASKS, {"layer4.0.conv2": (("a", "c"), ("b",))})).train()
    randomise(network, 1)
    return network


def parameters_of(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def gradients(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Gradients of all parameters; every one must have one."""
    network.zero_grad()
    torch.stack([output.square().sum() for output in network(x).values()]).sum().backward()
    found = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert all(gradient is not None for gradient in found.values())
    return {name: gradient.clone() for name, gradient in found.items() if gradient is not None}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_each_path_keeps_its_type(
    network: BranchedBackbone, dtype: torch.dtype, training: bool
) -> None:
    network.to(dtype).train(training)
    plain = {task: network.single(task) for task in TASKS}
    outputs = network(images().to(dtype))
    for task, model in plain.items():
        assert outputs[task].dtype == dtype
        assert torch.equal(outputs[task], model(images().to(dtype)))


@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", 64), ("convnext_atto", 64), ("vit_tiny_patch16_224", 32)]
)
def test_each_path_keeps_channels_last(name: str, size: int) -> None:
    arguments = {"img_size": size, "depth": 2} if name.startswith("vit") else {}
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, **arguments)
    x = torch.randn(2, 3, size, size).to(memory_format=torch.channels_last)
    network = branch(model, random_split(list(layers(model))), example=x)
    randomise(network, 1)
    network.to(memory_format=torch.channels_last)
    formats = [
        p.is_contiguous(memory_format=torch.channels_last)
        for p in network.parameters()
        if p.ndim == 4
    ]
    assert all(formats)
    check_paths(network, x, 1e-4)


def test_each_path_computes_alike_under_autocast(late: BranchedBackbone) -> None:
    network = late.float().train()
    x = images().float()
    plain = {task: network.single(task) for task in TASKS}
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(x)
        expected = {task: model(x) for task, model in plain.items()}
    for task in TASKS:
        assert torch.equal(outputs[task], expected[task])
        assert not torch.equal(outputs[task], network.single(task)(x))
    for results in (outputs, expected):
        torch.stack([output.float().square().sum() for output in results.values()]).sum().backward()
    own = {task: layers(model) for task, model in plain.items()}
    for name, blocks in network.layers().items():
        for block in blocks:
            for index, parameter in enumerate(block.parameters):
                parts = [own[task][name][index].grad for task in block.tasks]
                assert parameter.grad is not None
                total = torch.stack([part for part in parts if part is not None]).sum(0)
                assert_close(parameter.grad, total, 0.1, name)


def test_compiling_changes_nothing(late: BranchedBackbone) -> None:
    compiled = torch.compile(late.eval(), backend="eager", fullgraph=True)
    outputs, expected = compiled(images()), late(images())
    assert all(torch.equal(outputs[task], expected[task]) for task in TASKS)


def test_compiling_keeps_gradients_and_statistics() -> None:
    torch.manual_seed(0)
    network = branch(toys.Normed().double(), Split.private(["map"], TASKS)).train()
    randomise(network, 1)
    twin = copy.deepcopy(network)
    x = torch.randn(8, 3, dtype=torch.float64)
    found = gradients(torch.compile(twin, backend="aot_eager", fullgraph=True), x)
    for name, gradient in gradients(network, x).items():
        assert_close(found[f"_orig_mod.{name}"], gradient, 1e-9, name)
    state = twin.state_dict()
    for name, tensor in network.state_dict().items():
        assert_close(state[name], tensor, 1e-9, name)


def test_export_sees_plain_modules(network: BranchedBackbone) -> None:
    program = torch.export.export(network.eval(), (images(),))
    assert_close(program.module()(images())["b"], network(images())["b"], 1e-9, "b")


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    distributed.init_process_group(
        "gloo", store=distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_data_parallel_gives_every_parameter_the_same_gradient(network: BranchedBackbone) -> None:
    twin = copy.deepcopy(network).train()
    parallel = DistributedDataParallel(twin, find_unused_parameters=False)
    optimisers = [torch.optim.SGD(m.parameters(), lr=1e-3) for m in (network.train(), parallel)]
    for step in range(2):
        x = images(batch=4 + step)
        expected, found = gradients(network, x), gradients(parallel, x)
        assert set(found) == {f"module.{name}" for name in expected}
        for name, gradient in expected.items():
            assert_close(found[f"module.{name}"], gradient, 1e-9, name)
        for optimiser in optimisers:
            optimiser.step()


def test_state_dict_holds_every_tensor_once(backbone: nn.Module, network: BranchedBackbone) -> None:
    state = network.state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    assert {name for name, _ in network.named_parameters()} <= set(state)
    other = nn.ModuleDict({"backbone": branch(backbone, network.split)})
    randomise(other, 9)
    other.load_state_dict({f"backbone.{name}": tensor for name, tensor in state.items()})
    outputs, expected = other["backbone"].eval()(images()), network.eval()(images())
    assert all(torch.equal(outputs[task], expected[task]) for task in TASKS)
    del state["shared.conv1.3.weight"]
    with pytest.raises(RuntimeError, match=r"Missing key.*shared.conv1.3.weight"):
        network.load_state_dict(state)


def test_deep_copies_are_independent(network: BranchedBackbone) -> None:
    network.eval()
    before = network(images())
    twin = copy.deepcopy(network)
    randomise(twin, 8)
    twin.load_state_dict(twin.state_dict())
    assert not torch.equal(twin(images())["a"], before["a"])
    assert torch.equal(network(images())["a"], before["a"])
    assert parameters_of(twin) == parameters_of(network)
    check_paths(twin, images())


def test_safetensors_hold_every_tensor_once(network: BranchedBackbone, tmp_path: Path) -> None:
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    other = branch(small_resnet(), network.split)
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    outputs, expected = other.eval()(images()), network.eval()(images())
    assert all(torch.equal(outputs[task], expected[task]) for task in TASKS)


def overwriting(network: BranchedBackbone) -> None:
    """Convert as torch does where new tensors cannot take the place of old ones."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        network.float().double()
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


def moved(network: BranchedBackbone) -> None:
    """Move as a model is that was made without memory and is then loaded."""
    state = copy.deepcopy(network.state_dict())
    nn.ModuleList([network]).to("meta").to_empty(device="cpu")
    network.load_state_dict(state)


CHANGES: dict[str, Callable[[BranchedBackbone], object]] = {
    "assigned": lambda network: network.load_state_dict(
        copy.deepcopy(network.state_dict()), assign=True
    ),
    "moved": moved,
    "overwritten": overwriting,
}


@pytest.mark.parametrize("how", list(CHANGES))
def test_what_was_shared_stays_shared(network: BranchedBackbone, how: str) -> None:
    before = parameters_of(network)
    CHANGES[how](network)
    randomise(network, 3)
    assert parameters_of(network) == before
    check_paths(network, images())


def test_shared_buffers_stay_shared_when_moved() -> None:
    torch.manual_seed(0)
    model = timm.create_model("tiny_vit_5m_224", num_classes=0)
    name = next(name for name in layers(model) if "attention_biases" in name)
    example = torch.zeros(1, 3, 64, 64)
    network = branch(model, Split.private([name], ["p", "q"]), example=example)
    buffers = len(list(network.buffers()))
    assert len(list(network.double().buffers())) == buffers


def test_no_task_is_no_question(network: BranchedBackbone) -> None:
    with pytest.raises(SplitError, match="At least one task"):
        network(images(), [])
    assert list(network(images(), ["c", "a", "c"])) == ["a", "c"]


@pytest.mark.parametrize("tasks", ["a", "abc", "", 3, [["a"]], ["a", 3], b"a"])
def test_a_text_is_no_list_of_tasks(network: BranchedBackbone, tasks: Any) -> None:
    model = MultiTaskModel(network, {task: nn.Linear(16, 1) for task in TASKS}, {})
    network(images(), list("abc"))  # the function for it exists
    for forward in (network, model):
        with pytest.raises(SplitError, match=r"The tasks to compute must be a list of names, got"):
            forward(images(), tasks)


def test_source_lines_live_as_long_as_the_network(network: BranchedBackbone) -> None:
    before = set(linecache.cache)
    twin = branch(network, network.split)
    assert len(set(linecache.cache) - before) == 2
    del twin
    gc.collect()
    assert set(linecache.cache) <= before
