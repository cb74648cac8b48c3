from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from recon_search.graph.layers import backbone_digest, describe, layers
from tests import toys
from tests.graph.published import RESNET18


def test_resnet18_has_the_published_layers_in_order_of_use() -> None:
    model = timm.create_model("resnet18", in_chans=1, num_classes=100)
    found = layers(model)
    assert set(found) == set(RESNET18)
    assert list(found)[:4] == ["conv1", "bn1", "layer1.0.conv1", "layer1.0.bn1"]
    assert list(found)[-1] == "fc"
    assert found["bn1"][0] is model.bn1.weight
    assert found["bn1"][1] is model.bn1.bias
    assert sum(p.numel() for own in found.values() for p in own) == sum(
        p.numel() for p in model.parameters()
    )


def test_parameters_of_composite_modules_are_layers_of_their_own() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, init_values=0.1)
    assert list(layers(model))[:5] == [
        "patch_embed.proj",
        "cls_token",
        "pos_embed",
        "blocks.0.norm1",
        "blocks.0.attn.qkv",
    ]
    convnext = timm.create_model("convnext_atto")
    assert "stages.0.blocks.0.gamma" in layers(convnext)


def test_layers_inside_a_leaf_stand_where_the_leaf_does() -> None:
    assert list(layers(toys.Leafy())) == ["stem", "leaf.down", "leaf.up"]


def test_tied_and_unused_and_frozen_parameters() -> None:
    assert list(layers(toys.Tied())) == ["first"]
    assert list(layers(toys.Idle())) == ["map"]
    toy = toys.Residual()
    toy.body.requires_grad_(False)
    assert list(layers(toy)) == ["stem", "head"]
    toy.head.bias = nn.Parameter(torch.zeros(1, dtype=torch.float64), requires_grad=False)
    assert len(layers(toy)["head"]) == 1


def test_describe_tells_type_shape_and_size() -> None:
    rows = {row.name: row for row in describe(timm.create_model("resnet18", num_classes=10))}
    assert rows["conv1"].type == "Conv2d"
    assert rows["conv1"].shape == (64, 3, 7, 7)
    assert rows["fc"].n_parameters == 5130
    assert [name for name, row in rows.items() if row.is_norm] == [
        n for n in rows if "bn" in n or n.endswith("downsample.1")
    ]
    rows = {row.name: row for row in describe(timm.create_model("vit_tiny_patch16_224", depth=1))}
    assert rows["cls_token"].type == "Parameter"
    assert not rows["cls_token"].is_norm
    assert rows["blocks.0.norm1"].is_norm


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "mobilenetv2_100",
        "convnext_atto",
        "vit_tiny_patch16_224",
        "test_byobnet",
        "test_nfnet",
    ],
)
def test_digest_is_blind_to_channels_and_classes(name: str) -> None:
    plain = backbone_digest(timm.create_model(name))
    assert plain == backbone_digest(timm.create_model(name, num_classes=7, in_chans=1))
    assert plain == backbone_digest(timm.create_model(name, num_classes=0, in_chans=4))


def test_digest_sees_other_architectures() -> None:
    digests = {
        backbone_digest(timm.create_model("test_resnet", **kwargs))
        for kwargs in ({}, {"channels": (8, 8, 16, 16)}, {"layers": (1, 1, 1, 2)})
    }
    assert len(digests) == 3
