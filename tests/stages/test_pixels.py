"""The commands on models with tasks of pixels, alone and beside a class."""

import csv
import json

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from torch.nn import functional

import recon_search as rs
from recon_search.data.array_files import read_array
from recon_search.data.registry import find_source
from recon_search.recipe import load_recipe
from recon_search.stages.export import default_target
from tests.command import call
from tests.stages.pixels import MIXED, SCENES, write_mixed

CPU = ["--device", "cpu"]
TASKS = {"scenes": ("what", "depth", "normals", "edges"), "mixed": ("mask", "species")}


@pytest.fixture(scope="module", params=TASKS)
def trained(request, tmp_path_factory):
    """The name of a recipe, and a folder where it was trained."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "my.toml").write_text({"scenes": SCENES, "mixed": MIXED}[request.param])
    if request.param == "mixed":
        write_mixed(folder / "photos")
    done = call("train", "my.toml", "--workers", 1, "--out", "out", *CPU, cwd=folder)
    assert done.code == 0, done.error
    return request.param, folder


def batch_of(folder):
    """The test part, normalised as the model is used to, and the targets."""
    recipe = load_recipe(folder / "my.toml", [f"data.root={json.dumps(str(folder / 'photos'))}"])
    feed = find_source(recipe.data, recipe.tasks).open(torch.device("cpu"))
    ((batch,),) = feed.steps("test", 100)
    return (batch.inputs / 255 - feed.inputs.mean[:, None, None]) / feed.inputs.std[
        :, None, None
    ], batch.targets


def test_evaluate_measures_every_task_as_a_computation_by_hand_does(trained):
    name, folder = trained
    done = call("evaluate", "out/model", "my.toml", "--json", *CPU, cwd=folder)
    assert done.code == 0, done.error
    metrics = json.loads(done.output)["metrics"]
    assert tuple(metrics) == TASKS[name]
    images, targets = batch_of(folder)
    with torch.no_grad():
        outputs = rs.load(folder / "out/model")(images)
    classes = TASKS[name][0]
    right = (outputs[classes].argmax(1) == targets[classes]).double().mean()
    assert metrics[classes]["pixel-accuracy"] == pytest.approx(100 * right.item(), abs=1e-3)
    if name == "mixed":
        right = (outputs["species"].argmax(1) == targets["species"]).double().mean()
        assert metrics["species"]["accuracy"] == pytest.approx(100 * right.item(), abs=1e-3)
    else:
        errors = (outputs["depth"] - targets["depth"][:, None]).abs()
        found = metrics["depth"]["abs-error"]
        assert found == pytest.approx(errors[~errors.isnan()].mean().item(), rel=1e-4)
    table = call("evaluate", "out/model", "my.toml", *CPU, cwd=folder).output
    assert "miou" in table


@pytest.mark.parametrize("form", ["safetensors", "torch-export", "onnx"])
@pytest.mark.parametrize("which", [None, pytest.param(0, marks=pytest.mark.slow), 1])
def test_every_format_gives_what_the_model_does(trained, form, which):
    name, folder = trained
    if form == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    task = None if which is None else TASKS[name][which]
    target = folder / form / default_target(form, task)
    arguments = ["--format", form, "--out", target, *(["--task", task] if task else [])]
    done = call("export", "out/model", *arguments, cwd=folder)
    assert done.code == 0, done.error
    images, _ = batch_of(folder)
    model = rs.load(folder / "out/model").eval()
    with torch.no_grad():
        wanted = model(images[:3])
        wanted = [wanted[own] for own in ([task] if task else TASKS[name])]
        if form == "torch-export":
            found = torch.export.load(target).module()(images[:3])
        elif form == "onnx":
            import onnxruntime

            session = onnxruntime.InferenceSession(str(target))
            assert [each.name for each in session.get_outputs()] == (
                [task] if task else list(TASKS[name])
            )
            found = map(torch.from_numpy, session.run(None, {"images": images[:3].numpy()}))
        elif task is None:
            found = rs.load(target).eval()(images[:3]).values()
        else:
            return  # one task's weights are not a network; the command has compared them
    for own, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(own, theirs, atol=1e-5, rtol=1e-4)


def test_a_tasks_weights_load_into_plain_timm(trained):
    name, folder = trained
    for task in TASKS[name]:
        done = call("export", "out/model", "--format", "timm", "--task", task, cwd=folder)
        assert done.code == 0, done.error
        about = json.loads((folder / f"{task}.json").read_text())
        assert ("maps" in about) == (task != "species")
        plain = timm.create_model(**about["timm"])
        plain.load_state_dict(load_file(folder / f"{task}.safetensors"), strict=True)


def test_predictions_are_as_good_as_evaluate_says(trained):
    """From files: the maps, as the network saw the images, against masks brought to its size."""
    name, folder = trained
    if name == "scenes":
        pytest.skip("there are no files of rendered scenes")
    done = call("evaluate", "out/model", "my.toml", "--json", *CPU, cwd=folder)
    measured = json.loads(done.output)["metrics"]["mask"]["pixel-accuracy"]
    done = call("predict", "out/model", "photos/labels.csv", *CPU, cwd=folder)
    assert done.code == 0, done.error
    with (folder / "predictions.csv").open() as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    _, targets = batch_of(folder)
    found = np.stack([read_array(folder / rows[f"{i}.png"]["mask"]) for i in range(3, 32, 4)])
    assert measured == pytest.approx(100 * (found == targets["mask"].numpy()).mean(), abs=1e-3)
    assert {row["species"] for row in rows.values()} <= {"oak", "fir"}


@pytest.mark.parametrize(
    ("name", "args", "multiple"),
    [
        ("test_vit", "{ img_size = [32, 48] }", 16),
        ("test_convnext", "{}", 32),
        ("test_resnet", "{ output_stride = 8 }", 1),
    ],
)
def test_images_that_patches_do_not_divide_are_padded_and_never_resized(
    tmp_path, name, args, multiple
):
    recipe = MIXED.replace("image_size = [24, 32]", "image_size = [20, 33]")
    recipe = recipe.replace('name = "resnet18"', f'name = "{name}"')
    recipe = recipe.replace("args = { channels = [4, 4, 8, 8] }", f"args = {args}")
    (tmp_path / "my.toml").write_text(recipe)
    write_mixed(tmp_path / "photos")
    done = call("train", "my.toml", "--workers", 1, "--out", "out", *CPU, cwd=tmp_path)
    assert done.code == 0, done.error
    config = json.loads((tmp_path / "out/model/config.json").read_text())
    assert (config["maps"]["multiple"], config["input"]["shape"]) == (multiple, [3, 20, 33])
    images, targets = batch_of(tmp_path)
    assert targets["mask"].shape[1:] == images.shape[2:] == (20, 33)
    model = rs.load(tmp_path / "out/model").eval()
    with torch.no_grad():
        found = model(images)["mask"]
        padded = functional.pad(images, (0, -33 % multiple, 0, -20 % multiple))
        assert torch.equal(found, model(padded)["mask"][..., :20, :33])
    done = call("evaluate", "out/model", "my.toml", "--json", *CPU, cwd=tmp_path)
    measured = json.loads(done.output)["metrics"]["mask"]["pixel-accuracy"]
    right = (found.argmax(1) == targets["mask"]).double().mean()
    assert measured == pytest.approx(100 * right.item(), abs=1e-3)


@pytest.mark.parametrize("command", ["plan", "validate"])
def test_a_recipe_of_pixels_is_planned_and_rehearsed(trained, command):
    _, folder = trained
    done = call(command, "my.toml", "--set", "split.max_flops=1.5x", cwd=folder)
    assert done.code == 0, done.error


@pytest.mark.parametrize("method", ["rotograd", "rotate-only"])
@pytest.mark.parametrize(
    "section",
    [
        'train.method="{}"',
        'compare.methods=["joint", "{}"]',
        'search.space={{"train.method" = ["{}"]}}',
    ],
)
@pytest.mark.parametrize("command", ["validate", "run", "plan"])
def test_rotograd_is_refused_in_one_line_before_anything_is_trained(
    tmp_path, command, section, method
):
    (tmp_path / "my.toml").write_text(SCENES)
    done = call(command, "my.toml", "--set", section.format(method), cwd=tmp_path)
    assert done.code == 2
    (line,) = done.error.splitlines()
    assert "RotoGrad rotates one vector or one map a task, 'what' reads a pyramid" in line
    assert [path.name for path in tmp_path.iterdir()] == ["my.toml"]
