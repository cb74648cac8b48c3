"""What is frozen has no gradient, no layer, no statistics of its own, and no place in a split."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

import recon_search as rs
from recon_search.errors import RecipeError, SplitError
from recon_search.graph.split import Split
from recon_search.methods.surgeon import create_surgeon
from recon_search.model.facts import facts_of
from recon_search.model.freezing import freeze
from recon_search.model.network import build_model
from recon_search.recipe import BackboneConfig
from recon_search.tasks.classes import Classes
from tests.conftest import BACKBONE, HEAD
from tests.methods.gradients import randomise

TASKS = [Classes(task, 5) for task in "ab"]
PATTERNS = ["conv1", "bn1", "layer1.*", "layer3.0.bn1.weight", "layer3.0.bn2*"]


def make(frozen, split=(), backbone=BACKBONE, side=12, **more):
    plan = Split.private(list(split), ["a", "b"]) if split else None
    return build_model(
        backbone, HEAD, TASKS, shape=(1, side, side), split=plan, frozen=frozen, **more
    )


def plain():
    return timm.create_model("resnet18", in_chans=1, num_classes=6, **BACKBONE.args)


def frozen_names(module):
    return {name for name, p in module.named_parameters() if not p.requires_grad}


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["conv1"], {"conv1.weight"}),
        (["conv1.weight"], {"conv1.weight"}),
        (["bn1.bias"], {"bn1.bias"}),
        (["layer1.0"], "layer1.0."),
        (["layer1.*"], "layer1."),
        (["layer1*"], "layer1."),
        (["layer[12]"], ("layer1.", "layer2.")),
        (["*.bn?.weight"], lambda name: ".bn" in name and name.endswith("weight")),
        (["*bias"], lambda name: name.endswith("bias")),
        (["fc", "layer4"], ("fc.", "layer4.")),
    ],
    ids=str,
)
def test_patterns_name_parameters_and_modules(patterns, expected):
    backbone = plain()
    every = {name for name, _ in backbone.named_parameters()}
    freeze(backbone, patterns)
    if not isinstance(expected, set):
        is_meant = expected if callable(expected) else lambda name: name.startswith(expected)
        expected = {name for name in every if is_meant(name)}
    assert frozen_names(backbone) == expected
    assert expected


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["layr1.*"], r"'layr1.\*' is none of ResNet. Did you mean .*'layer1'"),
        (["conv1", "bn"], r"'bn' is none of ResNet. Did you mean 'bn1'"),
        (["heads.*"], r"'heads.\*' is none of ResNet.* heads are always trained"),
        (["relu"], r"'act1' is none|'relu' is none"),
        ([""], r"'' is none of ResNet"),
        (["*"], r"must leave a part of the backbone to train, got \['\*'\]"),
        (["conv1", "bn1", "layer*", "fc"], r"must leave a part.*Freeze less"),
    ],
    ids=str,
)
def test_patterns_that_name_nothing_or_everything_are_one_line(patterns, message):
    with pytest.raises(RecipeError, match=message) as caught:
        freeze(plain(), patterns)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("split", [(), ("layer2.0.conv1", "layer4.1.bn2")], ids=["whole", "split"])
def test_frozen_layers_are_no_layers(split):
    model = make(PATTERNS, split)
    every = list(make(()).backbone.layers())
    expected = [name for name in every if not name.startswith(("conv1", "bn1", "layer1."))]
    expected.remove("layer3.0.bn2")
    assert list(rs.layers(model.backbone)) == expected
    assert list(facts_of(BACKBONE, (1, 12, 12), PATTERNS).analysis.layers) == expected
    partly = model.backbone.layers()["layer3.0.bn1"]
    names = {id(p): name for name, p in model.backbone.named_parameters()}
    assert [names[id(p)] for block in partly for p in block.parameters] == [
        "shared.layer3.0.bn1.bias"
    ]


def test_the_digest_is_that_of_the_whole_backbone():
    """A split found with layers frozen is one of the backbone, and the other way round."""
    whole, frozen = (facts_of(BACKBONE, (1, 12, 12), f) for f in ((), PATTERNS))
    assert frozen.analysis.digest == whole.analysis.digest
    assert frozen.n_frozen == sum(
        p.numel() for n, p in plain().named_parameters() if n in frozen_names(_frozen_plain())
    )
    split = Split.private(["layer2.0.conv1"], ["a", "b"], backbone=frozen.identity)
    split.check(plain().requires_grad_(True))
    split.check(_frozen_plain())


def _frozen_plain():
    backbone = plain()
    freeze(backbone, PATTERNS)
    return backbone


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto"])
def test_layers_are_called_alike_whatever_else_is_frozen(name):
    """A parameter owned by a block keeps its name where all else in the block is frozen."""
    args = {
        "vit_tiny_patch16_224": {
            "img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 3, "init_values": 0.1,
        },
        "convnext_atto": {"depths": [1, 1, 2, 1], "dims": [4, 4, 8, 8]},
    }[name]  # fmt: skip
    config = BackboneConfig(name=name, args=args)
    every = list(facts_of(config, (1, 32, 32)).analysis.layers)
    patterns = ["*.conv_dw", "*.norm*", "*.mlp*", "*.attn*"]
    patterns = [p for p in patterns if any(p.strip("*.") in layer for layer in every)]
    kept = list(facts_of(config, (1, 32, 32), patterns).analysis.layers)
    assert kept == [layer for layer in every if layer in kept]
    assert any(layer.endswith(("gamma", "ls1")) for layer in kept)


@pytest.mark.parametrize("name", ["conv1", "layer1.0.conv2", "layer3.0.bn2"])
def test_a_split_that_names_a_frozen_layer_is_one_line(name):
    with pytest.raises(
        SplitError, match=f"trainable layers in use, ResNet froze '{name}'"
    ) as found:
        make(PATTERNS, [name])
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("method", ["joint", "pcgrad", "rotograd", "graddrop"])
def test_frozen_parameters_get_no_gradient_and_no_row(method):
    model = randomise(make(PATTERNS, ["layer2.0.conv1"]).double()).train()
    surgeon = create_surgeon(model, method)
    outputs = model(torch.randn(6, 1, 12, 12, dtype=torch.float64))
    losses = {task: output.square().mean() for task, output in outputs.items()}
    gramians = surgeon.backward(losses, measure=True)
    assert gramians.shape == (len(model.backbone.layers()), 2, 2)
    assert bool((gramians.diagonal(dim1=1, dim2=2) > 0).all())
    for parameter in model.parameters():
        assert (parameter.grad is None) is not parameter.requires_grad


def test_copies_drawn_anew_are_drawn_as_without_freezing():
    split = ["layer2.0.conv1", "layer3.0.bn1"]
    one, other = (make(f, split, init="fresh", seed=3) for f in ((), PATTERNS))
    for name, tensor in one.backbone.state_dict().items():
        if "layer3.0.bn1.weight" not in name:
            assert torch.equal(other.backbone.state_dict()[name], tensor), name


def by_hand(task, model, images, targets, steps):
    """The plain timm model with what is frozen frozen, and its frozen norms in eval mode."""
    backbone = plain()
    backbone.load_state_dict(model.backbone.task_state_dict(task))
    head = copy.deepcopy(model.heads[task])
    for name, parameter in backbone.named_parameters():
        is_frozen = name.startswith(("conv1", "bn1", "layer1.", "layer3.0.bn2"))
        parameter.requires_grad_(not is_frozen and name != "layer3.0.bn1.weight")
    backbone.train()
    for name, module in backbone.named_modules():
        is_norm = isinstance(module, nn.BatchNorm2d)
        if is_norm and name.startswith(("bn1", "layer1.", "layer3.0.bn2")):
            module.eval()
    trained = [p for p in (*backbone.parameters(), *head.parameters()) if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(head(backbone(images)), targets[task]).backward()
        optimizer.step()
    return backbone, head


def test_every_tasks_path_is_the_plain_model_with_the_same_frozen():
    """All that is not frozen is split, so that each task's path is a training of its own."""
    every = list(facts_of(BACKBONE, (1, 12, 12), PATTERNS).analysis.layers)
    model = randomise(make(PATTERNS, every)).train()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 1, 12, 12, generator=generator)
    targets = {task: torch.randint(5, (8,), generator=generator) for task in "ab"}
    expected = {task: by_hand(task, model, images, targets, 3) for task in "ab"}
    surgeon = create_surgeon(model, "joint")
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        outputs = model(images)
        losses = {task: F.cross_entropy(outputs[task], targets[task]) for task in "ab"}
        surgeon.backward(losses)
        optimizer.step()
        model.eval().train()
    for task, (backbone, head) in expected.items():
        found = model.backbone.task_state_dict(task)
        for name, tensor in backbone.state_dict().items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-7, msg=name)
        for mine, theirs in zip(model.heads[task].parameters(), head.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("change", [copy.deepcopy, lambda m: m.double(), lambda m: m.eval()])
def test_frozen_norms_stay_still_whatever_is_done_with_the_model(change):
    model = change(make(PATTERNS, ["layer2.0.conv1"])).train()
    still = set(model.still)
    assert {p.partition(".")[2] for p in still if p.startswith("shared")} >= {"bn1", "layer1.0.bn1"}
    for name, module in model.backbone.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training is (name not in still), name
    assert sum(p.endswith("layer3.0.bn2") for p in still) == 3, "that of both branches, and a name"


def test_norms_inside_modules_that_stay_whole_stay_still():
    """tiny_vit's blocks are leaves of the graph."""
    args = {
        "embed_dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2], "window_sizes": [4, 4, 2, 1],
    }  # fmt: skip
    backbone = BackboneConfig(name="tiny_vit_5m_224", args=args)
    model = make(["patch_embed", "stages.1.*"], backbone=backbone, side=32).train()
    before = {name: b.clone() for name, b in model.named_buffers() if "running" in name}
    model(torch.randn(4, 1, 32, 32))
    moved = {name for name, b in model.named_buffers() if name in before and
             not torch.equal(b, before[name])}  # fmt: skip
    assert moved
    assert moved == {n for n in before if not n.startswith(
        ("backbone.shared.patch_embed", "backbone.shared.stages.1."))}  # fmt: skip
