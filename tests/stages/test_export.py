"""Files for deployment, whatever tasks are called."""

import json
import re
from pathlib import Path

import onnxruntime
import pytest
import torch
from PIL import Image

from recon_search.errors import FileError
from recon_search.model.network import build_model
from recon_search.recipe import BackboneConfig, HeadConfig
from recon_search.stages.export import export
from recon_search.stages.formats import METADATA
from recon_search.tasks.classes import Classes
from recon_search.tasks.values import Values

BACKBONE = BackboneConfig(name="test_resnet", args={"channels": [4, 4, 8, 8]})
INPUT = {"shape": [3, 16, 16], "mean": [0.5] * 3, "std": [0.5] * 3}
NAMES = (
    "relu",
    "images",
    "images_",
    "view",
    "linear",
    "relu_1",
    "model.heads.relu.0.weight",
    "a $ [b]",
)


@pytest.mark.parametrize("task", [None, "relu", "images"])
def test_onnx_outputs_are_called_like_their_tasks_whatever_the_exporter_calls_the_rest(
    tmp_path, task
):
    tasks = [Classes(name, 3) for name in NAMES]
    build_model(BACKBONE, HeadConfig(), tasks, shape=INPUT["shape"]).save(
        tmp_path / "model", input=INPUT
    )
    assert export(tmp_path / "model", "onnx", task, tmp_path / "x.onnx") < 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_outputs()] == ([task] if task else [*NAMES])
    (given,) = (each.name for each in session.get_inputs())
    assert given == {None: "images__", "images": "images_"}.get(task, "images")


def test_a_file_says_how_images_are_made_ready_and_what_its_outputs_mean(tmp_path):
    size = Values("size", mean=[30.0], std=[5.0], unit="mm")
    tasks = [Classes("kind", 2, class_names=("a", "b")), size]
    model = build_model(BACKBONE, HeadConfig(), tasks, shape=INPUT["shape"])
    model.save(tmp_path / "model", input=INPUT)
    images = torch.randn(3, *INPUT["shape"])
    wanted = size.predict(model.eval()(images)["size"])[""]

    export(tmp_path / "model", "onnx", None, tmp_path / "x.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    said = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
    assert said["input"] == json.loads((tmp_path / "model/config.json").read_text())["input"]
    assert [each["name"] for each in said["tasks"]] == ["kind", "size"]
    assert said["tasks"][0]["class_names"] == ["a", "b"]
    (output,) = session.run(["size"], {"images": images.numpy()})
    numbers = output * said["tasks"][1]["std"] + said["tasks"][1]["mean"]
    assert numbers[:, 0] == pytest.approx(wanted, rel=1e-5)

    export(tmp_path / "model", "torch-export", "size", tmp_path / "x.pt2")
    extra = {METADATA: ""}
    torch.export.load(tmp_path / "x.pt2", extra_files=extra)
    assert json.loads(extra[METADATA]) == {"input": said["input"], "tasks": said["tasks"][1:]}


def test_the_pages_lines_for_onnx_say_what_the_model_says(tmp_path, monkeypatch, capsys):
    tasks = [Classes("kind", 2, class_names=("a", "b")), Values("size", mean=[30.0], std=[5.0])]
    model = build_model(BACKBONE, HeadConfig(), tasks, shape=INPUT["shape"])
    model.save(tmp_path / "model", input=INPUT)
    export(tmp_path / "model", "onnx", None, tmp_path / "mine.onnx")
    pixels = torch.randint(256, (16, 16, 3), dtype=torch.uint8).numpy()
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "recipes/stages.md").read_text("utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    exec(block.replace("photo.jpg", "photo.png"), {})
    outputs = model.eval()((torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255 - 0.5) / 0.5)
    kind = "ab"[int(outputs["kind"].argmax())]
    number = outputs["size"].item() * 5 + 30
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"kind {kind}"
    assert float(second.split("[")[1].split("]")[0]) == pytest.approx(number, rel=1e-4)


@pytest.mark.parametrize(
    ("kind", "task", "out"),
    [
        ("safetensors", None, "model"),
        ("timm", "a", "model/model.safetensors"),
        ("safetensors", "a", "model/split.safetensors"),
        ("timm", "a", "model/config.safetensors"),
    ],
)
def test_a_model_is_not_exported_over_itself(tmp_path, monkeypatch, make_model, kind, task, out):
    monkeypatch.chdir(tmp_path)
    make_model([]).float().save(tmp_path / "model", input={"shape": [1, 32, 32]})
    before = {path: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    with pytest.raises(FileError, match="--out must be another file than those that are read"):
        export(Path("model"), kind, task, Path(out))
    assert {path: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
