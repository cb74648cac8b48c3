"""Files for deployment, whatever tasks are called."""

import onnxruntime
import pytest

from recon_search.model.network import build_model
from recon_search.recipe import BackboneConfig, HeadConfig
from recon_search.stages.export import export
from recon_search.tasks.classes import Classes

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
