"""Mean, deviation and interpolation that a backbone's weights know are timm's."""

import json

import pytest
import timm

from recon_search.model.pretraining import find_pretraining
from recon_search.recipe import BackboneConfig


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "mobilenetv2_100"])
@pytest.mark.parametrize("weights", [{"pretrained": True}, {"weights": "own.safetensors"}])
def test_weights_bring_what_timm_knows_of_them(name, weights):
    known = timm.get_pretrained_cfg(name)
    found = find_pretraining(BackboneConfig(name=name, **weights), "auto")
    assert (found.mean, found.std, found.interpolation) == (
        known.mean,
        known.std,
        known.interpolation,
    )
    assert find_pretraining(BackboneConfig(name=name, **weights), "data") is None
    assert find_pretraining(BackboneConfig(name=name), "auto") is None
    assert find_pretraining(BackboneConfig(name=name), "timm") == found


def test_a_folder_says_what_its_weights_know(tmp_path):
    known = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bicubic"}
    config = {"architecture": "resnet18", "pretrained_cfg": known}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"")
    found = find_pretraining(BackboneConfig(name=f"local-dir:{tmp_path}"), "auto")
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert found.interpolation == "bicubic"
