from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from recon_search.errors import BackboneError, SplitError
from recon_search.graph.branch import branch
from recon_search.graph.layers import layers
from recon_search.graph.split import Split
from tests import toys
from tests.graph.laws import TASKS, check_paths, random_split, randomise
from tests.graph.models import images, small_resnet
from tests.graph.published import RESNET18

ONE = torch.ones(2, 1, dtype=torch.float64)


def parameters_of(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_branched_network_equals_the_backbone_at_first(backbone: nn.Module, training: bool) -> None:
    backbone.train(training)
    network = branch(backbone, random_split(list(layers(backbone))))
    x = images()
    outputs = network(x)
    expected = copy.deepcopy(backbone)(x)
    for task in TASKS:
        assert torch.equal(outputs[task], expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_each_path_equals_a_plain_model(backbone: nn.Module, training: bool, seed: int) -> None:
    network = branch(backbone, random_split(list(layers(backbone)), seed)).train(training)
    randomise(network, seed + 1)
    check_paths(network, images())


def test_nothing_split_is_bit_equal_to_the_backbone(backbone: nn.Module) -> None:
    network = branch(backbone, Split.private([], TASKS))
    x = images()
    outputs = network(x)
    assert outputs["a"] is outputs["b"]
    assert torch.equal(outputs["a"], copy.deepcopy(backbone)(x))
    assert parameters_of(network) == parameters_of(backbone)


def test_every_layer_split_is_one_model_a_task(backbone: nn.Module) -> None:
    network = branch(backbone, Split.private(list(layers(backbone)), TASKS))
    assert parameters_of(network) == 3 * parameters_of(backbone)
    randomise(network, 1)
    gradients = torch.autograd.grad(
        network(images())["b"].sum(), list(network.parameters()), allow_unused=True
    )
    names = [name for name, _ in network.named_parameters()]
    assert {n.split(".")[1] for n, g in zip(names, gradients, strict=True) if g is not None} == {
        "b"
    }


def test_parameters_are_base_plus_copies(backbone: nn.Module) -> None:
    split = random_split(list(layers(backbone)), 3)
    sizes = {name: sum(p.numel() for p in own) for name, own in layers(backbone).items()}
    extra = sum((len(groups) - 1) * sizes[name] for name, groups in split.layers.items())
    assert parameters_of(branch(backbone, split)) == parameters_of(backbone) + extra


def test_published_parameter_counts() -> None:
    backbone = timm.create_model("resnet18", in_chans=1, num_classes=100)
    heads = 2 * (100 * 10 + 10)
    unsplit = branch(backbone, Split.private([], ["left", "right"]))
    network = branch(backbone, Split.private(RESNET18[:25], ["left", "right"]))
    assert parameters_of(unsplit) + heads == 11_223_560
    assert parameters_of(network) + heads == 11_383_752


def test_the_backbone_is_left_untouched(backbone: nn.Module) -> None:
    before = copy.deepcopy(backbone.state_dict())
    attributes = {name: set(vars(part)) for name, part in backbone.named_modules()}
    backbone.layer1.eval()
    modes = [part.training for part in backbone.modules()]
    network = branch(backbone, random_split(list(layers(backbone))))
    randomise(network, 5)
    network.train()(images())
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    assert attributes == {name: set(vars(part)) for name, part in backbone.named_modules()}
    assert modes == [part.training for part in backbone.modules()]


def test_building_leaves_the_random_state(backbone: nn.Module) -> None:
    backbone.drop_rate = 0.5  # the head drops features, so that the training graph draws numbers
    before = torch.get_rng_state()
    branch(backbone, random_split(list(layers(backbone))))
    assert torch.equal(torch.get_rng_state(), before)


def test_building_is_the_same_without_gradients() -> None:
    with torch.no_grad():
        network = branch(toys.Residual(), Split.private(["body"], ["p", "q"]))
    assert all(parameter.requires_grad for parameter in network.parameters())
    check_paths(network, ONE)
    network.float()(ONE.float())  # traced by torch.fx, for exported graphs keep their type


def test_a_subset_computes_its_own_paths_alone(backbone: nn.Module) -> None:
    network = branch(backbone, Split.private(["layer2.0.conv1"], TASKS)).train()
    counts = dict.fromkeys(TASKS, "layer2.0.bn1.num_batches_tracked")
    expected = copy.deepcopy(network)(images())
    found = network(images(), ["c", "a"])
    assert list(found) == ["a", "c"]
    assert all(torch.equal(found[task], expected[task]) for task in found)
    seen = {task: int(network.task_state_dict(task)[counts[task]]) for task in TASKS}
    assert seen == {"a": 1, "b": 0, "c": 1}


def test_an_unknown_task_is_refused(backbone: nn.Module) -> None:
    network = branch(backbone, Split.private(["conv1.0"], ["left", "right"]))
    with pytest.raises(SplitError, match=r"one of \['left', 'right'\], got 'lefty'. Did you mean"):
        network(images(), ["lefty"])
    with pytest.raises(SplitError, match="got 'x'"):
        network.task_state_dict("x")


def test_statistics_are_private_to_each_branch(backbone: nn.Module) -> None:
    network = branch(backbone, Split.private(["layer2.0.conv1"], ["left", "right"])).train()
    randomise(network, 2)
    plain = {task: network.single(task) for task in network.tasks}
    for seed in range(3):
        torch.manual_seed(seed)
        x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
        network(x)
        for model in plain.values():
            model(x)
    network.eval()
    outputs = network(images())
    assert not torch.equal(outputs["left"], outputs["right"])
    for task, model in plain.items():
        torch.testing.assert_close(outputs[task], model.eval()(images()), rtol=1e-9, atol=1e-9)


def test_task_state_dict_loads_into_timm_strictly(backbone: nn.Module) -> None:
    network = branch(backbone, random_split(list(layers(backbone)), 1)).eval()
    randomise(network, 1)
    for task, output in network(images()).items():
        model = small_resnet().eval()
        state = network.task_state_dict(task)
        assert list(state) == list(model.state_dict())
        model.load_state_dict(state, strict=True)
        assert torch.equal(model(images()), output)
        single = network.single(task)
        assert type(single) is type(model)
        assert torch.equal(single(images()), output)


def test_loading_one_state_for_every_task_makes_all_equal(backbone: nn.Module) -> None:
    network = branch(backbone, random_split(list(layers(backbone)), 1)).eval()
    randomise(network, 1)
    for task in TASKS:
        network.load_task_state_dict(task, backbone.state_dict())
    expected = backbone.eval()(images())
    assert all(torch.equal(output, expected) for output in network(images()).values())


def test_loading_a_task_is_strict(backbone: nn.Module) -> None:
    network = branch(backbone, Split.private(["conv1.0"], TASKS))
    state = network.task_state_dict("a")
    wrong = dict(state, **{"conv1.0.weight": torch.zeros(3)})
    with pytest.raises(BackboneError, match=r"'conv1.0.weight' must have shape"):
        network.load_task_state_dict("a", wrong)
    with pytest.raises(BackboneError, match=r"'conv2.weight' is unknown. Did you mean"):
        network.load_task_state_dict("a", dict(state, **{"conv2.weight": torch.zeros(3)}))
    del state["bn1.bias"]
    with pytest.raises(BackboneError, match=r"'bn1.bias' is missing"):
        network.load_task_state_dict("a", state)


def test_blocks_own_the_parameters(backbone: nn.Module) -> None:
    split = Split(TASKS, {"layer1.0.conv1": (("a", "c"), ("b",)), "bn1": (("a",), ("b",), ("c",))})
    network = branch(backbone, split)
    found = network.layers()
    assert list(found) == list(layers(backbone))
    assert [block.tasks for block in found["layer1.0.conv1"]] == [("a", "c"), ("b",)]
    assert [block.tasks for block in found["bn1"]] == [("a",), ("b",), ("c",)]
    assert [block.tasks for block in found["layer4.0.bn1"]] == [TASKS]
    every = [p for copies in found.values() for block in copies for p in block.parameters]
    assert {id(p) for p in every} == {id(p) for p in network.parameters()}
    assert len(every) == len(list(network.parameters()))


def test_names_and_shapes_suit_weight_decay_filters(backbone: nn.Module) -> None:
    network = branch(backbone, random_split(list(layers(backbone)), 1))
    shapes = {name: parameter.shape for name, parameter in backbone.named_parameters()}
    for name, parameter in network.named_parameters():
        plain = name.split(".", 2 if name.startswith("branches.") else 1)[-1]
        assert parameter.shape == shapes[plain]


def test_partial_eval_mode_is_kept(backbone: nn.Module) -> None:
    backbone.train()
    backbone.bn1.eval()
    network = branch(backbone, Split.private(["layer1.0.conv1"], TASKS))
    network(images())
    assert int(network.task_state_dict("a")["bn1.num_batches_tracked"]) == 0
    assert int(network.task_state_dict("a")["layer1.0.bn1.num_batches_tracked"]) == 1


def test_branching_again_refines(backbone: nn.Module) -> None:
    first = Split(TASKS, {"layer3.0.conv1": (("a", "c"), ("b",))})
    network = branch(backbone, first)
    randomise(network, 1)
    network.train()(images())
    second = Split(TASKS, {"layer3.0.conv1": (("a",), ("b",), ("c",)), "bn1": (("a", "b"), ("c",))})
    finer = branch(network, second)
    assert finer.training
    before, after = network.eval()(images()), finer.eval()(images())
    assert all(torch.equal(before[task], after[task]) for task in TASKS)
    randomise(finer, 2)
    check_paths(finer, images())
    with pytest.raises(SplitError, match=r"must keep what is split already, 'layer3.0.conv1"):
        branch(network, Split.private(["bn1"], TASKS))
    with pytest.raises(SplitError, match="must keep its tasks"):
        branch(network, Split.private(["bn1"], ["a", "b"]))


def test_other_tasks_can_be_given(backbone: nn.Module) -> None:
    network = branch(backbone, Split.private(["conv1.0"], ["left", "right"]), ["x", "y", "z"])
    assert network.tasks == ("x", "y", "z")
    assert network.split.layers["conv1.0"] == (("x",), ("y",), ("z",))


def test_fork_inside_a_residual_block_reaches_every_task() -> None:
    network = branch(toys.Residual(), Split.private(["body"], ["p", "q"]))
    with torch.no_grad():
        network.layers()["body"][1].parameters[0].fill_(10)
    outputs = network(ONE)
    assert outputs["p"][0].item() == 9
    assert outputs["q"][0].item() == 2 + 21
