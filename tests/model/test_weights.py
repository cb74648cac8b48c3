"""A file of weights that is no whole one is refused in a line, and `validate` looks at it."""

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from recon_search.errors import BackboneError
from recon_search.model.backbone import check_weights, create_backbone
from recon_search.recipe import BackboneConfig
from tests.stages.recipes import TINY

ARGS = {"channels": [4, 4, 8, 8]}


@pytest.fixture(scope="module")
def donor(tmp_path_factory):
    """The weights of a network, as a file."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("donor") / "whole.safetensors"
    save_file(timm.create_model("resnet18", num_classes=0, **ARGS).state_dict(), path)
    return path


def without(state, *parts):
    return {name: tensor for name, tensor in state.items() if not name.startswith(parts)}


BYTES = {
    "empty": lambda content: b"",
    "a page": lambda content: b"<!doctype html><html><body>404</body></html>",
    "a part": lambda content: content[: len(content) // 2],
    "only the header": lambda content: content[:2000],
    "a flipped length": lambda content: b"\xff" * 8 + content[8:],
    "zeros": lambda content: bytes(len(content)),
}
STATES = {
    "nothing": (lambda state: {}, "holds no tensors"),
    "half": (lambda state: without(state, "layer3", "layer4"), r"are missing \(layer3"),
    "one less": (lambda state: without(state, "bn1.weight"), r"1 of \d+ are missing \(bn1.weight"),
    "one more": (lambda state: {**state, "other": torch.ones(2)}, r"are unknown \(other\)"),
    "another width": (
        lambda state: {**state, "bn1.weight": torch.ones(5)},
        r"of another shape \(bn1.weight \(5,\) for",
    ),
    "no number": (
        lambda state: {**state, "bn1.weight": state["bn1.weight"] * torch.nan},
        "must be .* of finite numbers, 'bn1.weight'",
    ),
}


def config_of(path):
    return BackboneConfig(name="resnet18", args=ARGS, weights=str(path))


@pytest.mark.parametrize("damage", BYTES)
def test_a_file_that_is_damaged_is_one_line(donor, tmp_path, damage):
    path = tmp_path / "w.safetensors"
    path.write_bytes(BYTES[damage](donor.read_bytes()))
    for look in (check_weights, create_backbone):
        with pytest.raises(BackboneError, match=r"`backbone\.weights` must be a local") as caught:
            look(config_of(path), in_chans=3)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", STATES)
def test_tensors_of_another_network_are_named(donor, tmp_path, change):
    make, message = STATES[change]
    path = tmp_path / "w.safetensors"
    save_file(make(load_file(donor)), path)
    for look in (check_weights, create_backbone):
        with pytest.raises(BackboneError, match=message) as caught:
            look(config_of(path), in_chans=3)
        assert "\n" not in str(caught.value)


def test_validate_looks_at_the_file(donor, tmp_path, invoke):
    (tmp_path / "tiny.toml").write_text(TINY)
    words = ("validate", "tiny.toml", "--quick", "--set")
    assert invoke(*words, f"backbone.weights={donor}").code == 0
    save_file(STATES["half"][0](load_file(donor)), tmp_path / "half.safetensors")
    done = invoke(*words, "backbone.weights=half.safetensors")
    assert done.code == 2
    (line,) = done.error.splitlines()
    assert "half.safetensors must fit resnet18" in line
