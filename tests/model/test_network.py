"""Building, saving and loading models; local weights."""

import pytest
import timm
import torch
from safetensors.torch import save_file

import recon_search as rs
from recon_search.errors import ArtefactError, BackboneError
from recon_search.model.network import build_model, create_backbone
from recon_search.recipe import BackboneConfig, HeadConfig
from recon_search.tasks.classes import Classes
from recon_search.tasks.scoring import delta_m
from tests.conftest import BACKBONE


@pytest.fixture
def saved(tmp_path, make_model):
    model = make_model(["layer2.0.bn1", "fc"]).float().eval()
    model.config["input"] = {"shape": [1, 32, 32], "mean": [0.1], "std": [0.3]}
    model.save(tmp_path / "model")
    return model, tmp_path / "model"


def test_save_and_load(saved):
    model, path = saved
    loaded = rs.load(path)
    images = torch.randn(3, 1, 32, 32)
    for task, output in model(images).items():
        assert torch.equal(loaded(images)[task], output)
    assert list(loaded(images, tasks=["b"])) == ["b"]
    assert loaded.config["input"]["mean"] == [0.1]


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "split.json"])
def test_damaged_model_directories(saved, file):
    _, path = saved
    content = (path / file).read_bytes()
    (path / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtefactError, match="could not read"):
        rs.load(path)


def test_a_model_file_of_another_split_is_refused(saved, make_model):
    _, path = saved
    make_model(["layer2.0.bn1"]).float().backbone.split.save(path / "split.json")
    with pytest.raises(ArtefactError, match="must hold exactly the tensors"):
        rs.load(path)


def test_unknown_backbone_names_near_ones():
    with pytest.raises(BackboneError, match="Did you mean 'resnet18"):
        create_backbone(BackboneConfig(name="resnet_18"), in_chans=3)


def test_refused_arguments():
    with pytest.raises(BackboneError, match=r"Check `backbone.args`"):
        create_backbone(BackboneConfig(name="resnet18", args={"chanels": [4]}), in_chans=3)


def test_local_weights_are_loaded_and_their_classifier_left_out(tmp_path):
    donor = timm.create_model("resnet18", channels=[4, 4, 8, 8], num_classes=11)
    save_file(donor.state_dict(), tmp_path / "donor.safetensors")
    config = BACKBONE.model_copy(update={"weights": str(tmp_path / "donor.safetensors")})
    loaded = create_backbone(config, in_chans=3)
    assert torch.equal(loaded.layer3[0].conv1.weight, donor.layer3[0].conv1.weight)
    assert loaded.fc.out_features == 6
    grey = create_backbone(config, in_chans=1)
    torch.testing.assert_close(grey.conv1.weight, donor.conv1.weight.sum(1, keepdim=True))


def test_pickled_weights_are_refused(tmp_path):
    config = BACKBONE.model_copy(update={"weights": str(tmp_path / "model.pth")})
    with pytest.raises(BackboneError, match=r"local .safetensors file"):
        create_backbone(config, in_chans=3)


def test_published_sizes():
    """Recon, Table 1: 42.81 MB unsplit and 43.43 MB with the published top 25 layers split."""
    backbone = BackboneConfig(name="resnet18", features=100)
    tasks = [Classes("digit", 10), Classes("fashion", 10)]
    unsplit = build_model(backbone, HeadConfig(activation="relu"), tasks, shape=(1, 36, 36))
    assert sum(p.numel() for p in unsplit.parameters()) == 11_223_560
    assert round(11_223_560 * 4 / 2**20, 2) == 42.81


def test_delta_m_by_hand():
    judged_by = {"a": {"accuracy": 1}, "b": {"accuracy": 1}}
    single = {"a": {"accuracy": 80.0, "loss": 1.0}, "b": {"accuracy": 50.0, "loss": 2.0}}
    model = {"a": {"accuracy": 84.0, "loss": 9.0}, "b": {"accuracy": 49.0, "loss": 9.0}}
    assert delta_m(model, single, judged_by) == pytest.approx((5.0 - 2.0) / 2)
    assert delta_m(single, single, judged_by) == 0
