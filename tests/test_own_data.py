"""Data of one's own, of every source, from the first look to a file that is deployed."""

import json
import math
from urllib.parse import quote

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from safetensors.torch import load_file

import recon_search as rs
from recon_search.artefact import read_json
from recon_search.data.gallery import find_pictures
from recon_search.data.pictures import read_picture
from recon_search.data.transforms import prepare
from recon_search.runs.comparison import Comparison
from recon_search.stages import judge
from recon_search.stages.search import work
from tests.command import call
from tests.sources import SOURCES, read_rows, write_source

CPU = ("--device", "cpu")


def succeed(*arguments, cwd):
    """Run a command that must not fail; returns what it printed."""
    done = call(*arguments, cwd=cwd)
    assert done.code == 0, done.error
    assert "Traceback" not in done.error
    return done.output


@pytest.fixture(scope="module", params=SOURCES)
def finished(request, tmp_path_factory):
    """The folder of a finished run, and its source."""
    folder = tmp_path_factory.mktemp("own")
    source = write_source(request.param, folder)
    succeed("run", "mine.toml", "--out", "out", *CPU, "--workers", 1, cwd=folder)
    return folder, source


def test_the_data_are_looked_at_checked_and_planned_before_a_run(finished):
    folder, source = finished
    seen = json.loads(succeed("data", "mine.toml", "--json", "--out", "sheet.png", cwd=folder))
    assert (folder / "sheet.png").stat().st_size > 1000
    assert {task["name"] for task in seen["tasks"]} == set(source.kinds)
    succeed("validate", "mine.toml", cwd=folder)
    planned = json.loads(succeed("plan", "mine.toml", *CPU, "--json", cwd=folder))
    names = [line["name"] for line in planned["lines"]]
    assert names[: 1 + len(source.kinds)] == ["probe", *(f"single {task}" for task in source.kinds)]


def test_a_run_s_model_is_worth_what_the_run_reported(finished):
    folder, source = finished
    best = Comparison.load(folder / "out/comparison.json").best
    assert math.isfinite(best.validation_delta_m)
    reported = json.loads((folder / best.directory / "result.json").read_text())
    for part in ("validation", "test"):
        arguments = ("evaluate", "out/model", "mine.toml", "--part", part, "--json", *CPU)
        found = json.loads(succeed(*arguments, cwd=folder))
        assert found["metrics"] == reported[part]
        assert list(found["metrics"]) == list(source.kinds)


def outputs_of(folder, source):
    """Pictures, their tensors as the model's config says, and the model's outputs."""
    model = rs.load(folder / "out/model").eval()
    config = model.config["input"]
    pictures = find_pictures([str(folder / source.images)])
    images = torch.stack([prepare(read_picture(p.path, p.name, 3), config) for p in pictures])
    with torch.no_grad():
        return model, images, model(images)


def test_predictions_are_in_the_users_words_and_units(finished):
    folder, source = finished
    succeed("predict", "out/model", source.images, "--grid", "grid.png", *CPU, cwd=folder)
    assert (folder / "grid.png").stat().st_size > 1000
    rows = read_rows(folder / "predictions.csv")
    model, images, outputs = outputs_of(folder, source)
    assert len(rows) == len(images)
    columns = [name for name in rows[0] if " probability" not in name]
    assert columns == ["file", *source.columns]
    specs = {spec["name"]: spec for spec in model.config["tasks"]}
    for task, kind in source.kinds.items():
        found = outputs[task].double().numpy()
        if kind == "values":
            width = found.shape[1]
            own = [task] if width == 1 else [f"{task} {k}" for k in range(1, 1 + width)]
            said = np.array([[float(row[column]) for column in own] for row in rows])
            scale = [np.atleast_1d(specs[task][key]) for key in ("std", "mean")]
            np.testing.assert_allclose(said, found * scale[0] + scale[1], rtol=1e-5)
        elif kind == "classes":
            names = specs[task].get("class_names") or list(map(str, range(found.shape[1])))
            assert [row[task] for row in rows] == [names[best] for best in found.argmax(1)]
        elif kind == "binary":
            assert [row[task] for row in rows] == np.where(found[:, 0] > 0, "yes", "no").tolist()


def test_the_deployed_files_say_what_the_model_says_of_a_real_image(finished):
    folder, source = finished
    model, images, outputs = outputs_of(folder, source)
    succeed("export", "out/model", "--format", "onnx", "--out", "all.onnx", cwd=folder)
    session = onnxruntime.InferenceSession(folder / "all.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == list(source.kinds)
    told = session.run(None, {"images": images.numpy()})
    for task, output in zip(source.kinds, told, strict=True):
        torch.testing.assert_close(torch.from_numpy(output), outputs[task], rtol=1e-4, atol=1e-5)
    task = next(iter(source.kinds))
    succeed("export", "out/model", "--task", task, cwd=folder)
    stem = folder / quote(task, safe=" +")
    described = read_json(stem.with_name(f"{stem.name}.json"), "description")
    plain = timm.create_model(**described["timm"]).eval()
    plain.load_state_dict(load_file(f"{stem}.safetensors"), strict=True)
    head = load_file(f"{stem}.head.safetensors")
    with torch.no_grad():
        features = plain(images)
        assert torch.equal(features, model.features(images, [task])[task])
    assert set(head) == set(model.heads[task].state_dict())


def test_a_split_of_one_source_is_trained_on_another(finished, tmp_path):
    folder, source = finished
    other = write_source("image-folder" if len(source.kinds) > 2 else "all kinds", tmp_path)
    split = folder / "out/split.json"
    arguments = ("train", "mine.toml", "--split", split, "--out", "t", "--json", *CPU)
    result = json.loads(succeed(*arguments, cwd=tmp_path))
    assert set(result["test"]) == set(other.kinds)
    model = rs.load(tmp_path / "t/model")
    assert model.backbone.split.layers.keys() == rs.Split.load(split).layers.keys()


def test_a_search_tries_splits_and_judges_the_best(finished, monkeypatch):
    folder, source = finished
    spawned = "factory" in source.head  # a worker must find it by its import path
    if not spawned:
        monkeypatch.setattr(judge, "search", work)
    succeed("search", "mine.toml", "--scores", "out/scores.safetensors", "--out", "searched",
            "--no-judge" if spawned else "--judge", *CPU, "--workers", 1, cwd=folder)  # fmt: skip
    summary = json.loads(succeed("search", "--show", "searched", "--json", cwd=folder))
    values = [trial["delta_m"] for trial in summary["trials"] if trial["seconds"] > 0]
    assert len(values) >= 2
    assert all(map(math.isfinite, values))
    assert (folder / "searched/model/model.safetensors").is_file() != spawned
