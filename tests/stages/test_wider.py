"""The control that spends a split's parameters on width."""

import pytest

from recon_search.graph.layers import layers
from recon_search.graph.split import Split
from recon_search.model.backbone import create_backbone
from recon_search.recipe import BackboneConfig
from recon_search.stages.wider import widen

TASKS = ("a", "b", "c")
BACKBONES = {
    "resnet18": (BackboneConfig(name="resnet18", args={"channels": [8, 8, 16, 16]}), "channels"),
    "vit": (
        BackboneConfig(
            name="vit_tiny_patch16_224", args={"img_size": 32, "embed_dim": 24, "depth": 2}
        ),
        "embed_dim",
    ),
}
SHAPE = (3, 32, 32)


def size(config):
    return sum(p.numel() for p in create_backbone(config, in_chans=3).parameters())


def split_of(config, share):
    """A split of the first layers that hold a share of the backbone's parameters."""
    found = layers(create_backbone(config, in_chans=3))
    chosen, total = [], 0
    for name, parameters in found.items():
        if total >= share * size(config):
            break
        chosen.append(name)
        total += sum(p.numel() for p in parameters)
    return Split.private(chosen, TASKS), size(config) + total * (len(TASKS) - 1)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("share", [0.2, 0.7])
def test_the_wider_network_comes_near_the_split_ones_size(name, share):
    config, argument = BACKBONES[name]
    split, target = split_of(config, share)
    wider = widen(config, split, SHAPE)
    assert size(wider) > size(config)
    assert abs(size(wider) - target) / target < (0.15 if name == "resnet18" else 0.4)
    changed = {key for key, value in wider.args.items() if config.args.get(key) != value}
    assert changed == {argument}
    assert wider.model_copy(update={"args": config.args}) == config, "nothing else changes"
    assert BACKBONES[name][0].args == config.args


@pytest.mark.parametrize("begun", [{"weights": "donor.safetensors"}, {"pretrained": True}])
def test_no_weights_fit_another_width(begun):
    config, _ = BACKBONES["resnet18"]
    split, _ = split_of(config, 0.5)
    wider = widen(config.model_copy(update=begun), split, SHAPE)
    assert (wider.weights, wider.pretrained) == (None, False)
    assert wider == widen(config, split, SHAPE)


def test_a_split_of_nothing_is_not_widened_for():
    config, _ = BACKBONES["resnet18"]
    assert widen(config, Split(TASKS, {}), SHAPE) in (None, config)


def test_a_backbone_without_a_width_has_no_wider_one():
    config = BackboneConfig(name="test_byobnet")
    found = list(layers(create_backbone(config, in_chans=3)))
    assert widen(config, Split.private(found[:3], TASKS), SHAPE) is None
