"""Model directories: those of the first format, and those that describe no model."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import recon_search as rs
from recon_search import artefact
from recon_search.errors import ArtefactError


@pytest.fixture
def saved(tmp_path, make_model):
    """A model of two tasks and its directory."""
    model = make_model(["layer2.0.bn1", "fc"]).float().eval()
    model.config["input"] = {"shape": [1, 32, 32], "mean": [0.1], "std": [0.3]}
    model.save(tmp_path / "model")
    return model, tmp_path / "model"


def rewrite(path, config, version):
    """Write a directory's config, and another format into both files, as before digests."""
    config = {**config, "format": f"recon-search/model/{version}"}
    config.pop("digest", None)
    (path / "config.json").write_text(json.dumps(config))
    metadata = {"format": json.dumps(config["format"])}
    save_file(load_file(path / "model.safetensors"), path / "model.safetensors", metadata)


@pytest.fixture
def first(saved):
    """The same directory as the first version wrote it: tasks are numbers of classes."""
    model, path = saved
    config = json.loads((path / "config.json").read_text())
    config["tasks"] = {"a": 5, "b": 5}
    del config["head"]["args"]  # a later key
    rewrite(path, config, 1)
    return model, path


def test_a_directory_of_the_first_format_is_read(first):
    model, path = first
    loaded = rs.load(path)
    images = torch.randn(3, 1, 32, 32)
    for task, output in model(images).items():
        assert torch.equal(loaded(images)[task], output)
    assert loaded.tasks == ("a", "b")
    assert loaded.config["tasks"] == [
        task.spec() for task in (rs.Classes("a", 5), rs.Classes("b", 5))
    ]
    assert loaded.config["input"] == {"shape": [1, 32, 32], "mean": [0.1], "std": [0.3]}
    assert "digest" not in loaded.config


def test_what_is_read_is_saved_in_the_present_format(first, tmp_path):
    model, path = first
    rs.load(path).save(tmp_path / "again")
    config = json.loads((tmp_path / "again/config.json").read_text())
    assert config["format"] == "recon-search/model/3"
    with safe_open(tmp_path / "again/model.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["format"]) == "recon-search/model/3"
    again, images = rs.load(tmp_path / "again"), torch.randn(3, 1, 32, 32)
    assert all(torch.equal(again(images)[t], output) for t, output in model(images).items())


@pytest.mark.parametrize("version", [0, 4])
def test_other_formats_are_refused(first, version):
    _, path = first
    rewrite(path, json.loads((path / "config.json").read_text()), version)
    with pytest.raises(
        ArtefactError, match=rf"must have format .*, found 'recon-search/model/{version}'"
    ):
        rs.load(path)


@pytest.mark.parametrize(
    ("version", "change"),
    [
        (1, {"tasks": ["a", "b"]}),
        (1, {"tasks": None}),
        (2, {"tasks": {"a": 5, "b": 5}}),
        (2, {"tasks": [{"kind": "unheard", "name": "a"}]}),
        (2, {"tasks": [{"kind": "classes", "name": "a"}]}),
        (2, {"tasks": 3}),
        (2, {"input": {}}),
        (2, {"input": {"shape": None}}),
        (2, {"backbone": {"nme": "resnet18"}}),
        (2, {"backbone": []}),
        (2, {"head": {"kind": "cnn"}}),
        (2, {"head": None}),
    ],
    ids=str,
)
def test_a_config_that_describes_no_model_is_one_line(saved, version, change):
    _, path = saved
    rewrite(path, {**json.loads((path / "config.json").read_text()), **change}, version)
    with pytest.raises(ArtefactError, match=r"config\.json|of a task|of kind") as caught:
        rs.load(path)
    assert "\n" not in str(caught.value)


def test_tasks_that_the_split_does_not_have_are_refused(saved):
    _, path = saved
    config = json.loads((path / "config.json").read_text())
    config["tasks"] = [task.spec() for task in (rs.Classes("a", 5), rs.Classes("c", 5))]
    rewrite(path, config, 2)
    with pytest.raises(
        rs.ReconSearchError, match=r"must name the same tasks.*found a, c and a, b"
    ) as caught:
        rs.load(path)
    assert "\n" not in str(caught.value)


def test_a_tensor_of_another_kind_is_refused(saved):
    _, path = saved
    state = load_file(path / "model.safetensors")
    state = {n: t.long() if n.endswith("conv1.weight") else t for n, t in state.items()}
    metadata = {"format": "recon-search/model/3"}
    artefact.write_tensors(path / "model.safetensors", state, metadata)
    with pytest.raises(ArtefactError, match=r"as torch\.float32, found torch\.int64"):
        rs.load(path)


@pytest.mark.parametrize("shape", [[1, 32], [0, 32, 32], [1, 32, 10**6], [1.0, 32, 32], "132"])
def test_images_of_no_size_are_refused(saved, shape):
    _, path = saved
    config = json.loads((path / "config.json").read_text())
    artefact.write_json(path / "config.json", config | {"input": {"shape": shape}})
    with pytest.raises(ArtefactError, match=r"config\.json `input\.shape"):
        rs.load(path)


def test_a_network_larger_than_its_weights_is_never_made(saved):
    _, path = saved
    config = json.loads((path / "config.json").read_text())
    config["backbone"]["args"] = {"channels": [8000, 8000, 8000, 8000]}
    artefact.write_json(path / "config.json", config)
    with pytest.raises(ArtefactError, match=r"has [\d,]+ numbers, the weights have [\d,]+"):
        rs.load(path)


def test_the_folder_of_a_run_is_told_where_its_model_is(saved):
    _, path = saved
    with pytest.raises(ArtefactError, match=rf"A model directory is needed.*Give {path}\.$"):
        rs.load(path.parent)
