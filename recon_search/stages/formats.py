"""The formats that a model is exported in; each file is run and compared with the model."""

from __future__ import annotations

import copy
import importlib.util
import io
import itertools
import json
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recon_search import artefact
from recon_search.errors import ArtefactError, ReconSearchError, SplitError
from recon_search.model.backbone import create_backbone
from recon_search.model.files import heads_of, load
from recon_search.model.network import MultiTaskModel
from recon_search.model.pyramid import pad
from recon_search.recipe import BackboneConfig

METADATA = "recon-search.json"
"""Under what name an ONNX file and a program hold how images are made ready, and what is said."""

Exporter = Callable[[MultiTaskModel, str | None, Path], float]


def export_timm(model: MultiTaskModel, task: str | None, target: Path) -> float:
    """Write one task's backbone as a state dict that an untouched timm model loads strictly.

    Beside `target` come `<stem>.head.safetensors`, the task's head, and `<stem>.json`, the
    arguments of `timm.create_model` and how images are made ready.
    """
    if task is None:
        raise SplitError(
            f"--format timm needs --task, one of {', '.join(model.tasks)}, got none. "
            "A plain timm model holds one task."
        )
    artefact.write_tensors(target, model.backbone.task_state_dict(task), {"task": task})
    head = model.heads[task].state_dict()
    artefact.write_tensors(target.with_suffix(".head.safetensors"), head, {"task": task})
    artefact.write_json(target.with_suffix(".json"), _describe(model, task))

    plain = create_backbone(
        BackboneConfig(**model.config["backbone"]), in_chans=model.config["input"]["shape"][0]
    )
    _load(plain, target)
    call = model.backbone.call_of(task)
    return _difference(
        lambda x: call.apply(plain.eval(), pad(x, model.multiple)),
        lambda x: model.features(x, [task])[task],
        model,
    )


def export_safetensors(model: MultiTaskModel, task: str | None, target: Path) -> float:
    """Write all weights: a model directory of all tasks, or backbone and head of one task.

    One task's file has the keys `backbone.*`, plain timm names, and `head.*`; `<stem>.json` says
    how to build both.
    """
    if task is None:
        config = {key: value for key, value in model.config.items() if key != "format"}
        model.config = config
        model.save(target)
        return _difference(_Deployed(load(target), None), _Deployed(model, None), model)
    alone = _Alone(model, task)
    artefact.write_tensors(target, alone.state_dict(), {"task": task})
    artefact.write_json(target.with_suffix(".json"), _describe(model, task))
    again = copy.deepcopy(alone)
    with torch.no_grad():
        for tensor in again.state_dict().values():
            tensor.zero_()
    _load(again, target)
    return _difference(again, _Deployed(model, task), model)


def export_program(model: MultiTaskModel, task: str | None, target: Path) -> float:
    """Write a torch.export program with a dynamic batch: images in, a tuple of outputs out.

    Its extra file `METADATA` says how images are made ready and what outputs mean.
    """
    program = _program(model, task)
    content = io.BytesIO()  # on a full disk torch's own writer ends the process
    torch.export.save(program, content, extra_files={METADATA: _meaning(model, task)})
    artefact.write_bytes(target, content.getvalue())
    written = torch.export.load(target).module()
    return _difference(written, _Deployed(model, task), model)


def export_onnx(model: MultiTaskModel, task: str | None, target: Path) -> float:
    """Write ONNX with a dynamic batch, input `images` and one output a task, named like it.

    Where a task is called `images`, the input is called `images_`. The file's metadata `METADATA`
    say how images are made ready and what outputs mean.
    """
    missing = [
        name for name in ("onnx", "onnxscript", "onnxruntime") if not importlib.util.find_spec(name)
    ]
    if missing:
        raise ReconSearchError(
            f"--format onnx needs {', '.join(missing)}, found none of it. "
            "Install it with: pip install 'recon-search[onnx]'"
        )
    import onnxruntime

    outputs = [task] if task is not None else list(model.tasks)
    given = "images"
    while given in outputs:
        given += "_"
    with artefact.atomic(target) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about its dependencies
        program = torch.onnx.export(
            _Deployed(model, task),
            (_images(model),),
            dynamo=True,
            verbose=False,
            input_names=[given],
            output_names=outputs,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        )
        assert program is not None
        _rename_inner(program.model.graph, {given, *outputs})
        program.model.metadata_props[METADATA] = _meaning(model, task)
        program.save(str(temporary), external_data=False)
    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> tuple[Tensor, ...]:
        outputs = session.run(None, {given: images.numpy()})
        return tuple(torch.from_numpy(output) for output in outputs)

    return _difference(run, _Deployed(model, task), model)


def _rename_inner(graph: Any, taken: Collection[str]) -> None:
    """Rename what an ONNX graph computes on its way and calls like a task, such as `relu`."""
    ends = {id(value) for value in (*graph.inputs, *graph.outputs)}
    inner = [value for node in graph for value in node.outputs if id(value) not in ends]
    known = {value.name for value in inner} | {*graph.initializers, *taken}
    numbers = itertools.count(1)
    for value in [*inner, *graph.initializers.values()]:
        if value.name in taken:
            tried = (f"{value.name}_{number}" for number in numbers)
            value.name = next(name for name in tried if name not in known)


EXPORTERS: dict[str, Exporter] = {
    "timm": export_timm,
    "safetensors": export_safetensors,
    "torch-export": export_program,
    "onnx": export_onnx,
}


class _Deployed(nn.Module):
    """Some tasks of a model with a tuple of outputs, as exporters like it."""

    def __init__(self, model: MultiTaskModel, task: str | None) -> None:
        super().__init__()
        self.tasks = model.tasks if task is None else (task,)
        # One task pays for one path alone: a plain backbone of the original size.
        self.model = model if task is None else _Alone(model, task)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs = self.model(images)
        if isinstance(outputs, Tensor):
            return (outputs,)
        return tuple(outputs[task] for task in self.tasks)


class _Alone(nn.Module):
    """Backbone and head of one task."""

    def __init__(self, model: MultiTaskModel, task: str) -> None:
        super().__init__()
        self.backbone = model.backbone.single(task)
        self.head = model.heads[task]
        self.call = model.backbone.call_of(task)
        self.multiple = model.multiple
        self.eval()

    def forward(self, images: Tensor) -> Any:
        output = self.head(self.call.apply(self.backbone, pad(images, self.multiple)))
        if self.call.kind == "forward":
            return output
        height, width = images.shape[-2:]
        return output[..., :height, :width]


def _read(model: MultiTaskModel, task: str) -> dict[str, Any]:
    """Say what a head reads that reads maps, and what its images are padded to."""
    call = model.backbone.call_of(task)
    if call.kind == "forward":
        return {}
    return {"maps": {"levels": list(call.indices), "multiple": model.multiple}}


def _program(model: MultiTaskModel, task: str | None) -> torch.export.ExportedProgram:
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    return torch.export.export(_Deployed(model, task), (_images(model),), dynamic_shapes=shapes)


def _images(model: MultiTaskModel, batch: int = 2) -> Tensor:
    return torch.randn(batch, *model.config["input"]["shape"])


def _load(module: nn.Module, path: Path) -> None:
    state, _ = artefact.read_tensors(path, "exported state dict")
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ArtefactError(
            f"{path} must load strictly: {' '.join(str(error).split())} Report this."
        ) from None


@torch.no_grad()
def _difference(
    written: Callable[[Tensor], Any], original: Callable[[Tensor], Any], model: MultiTaskModel
) -> float:
    """Largest difference of outputs over two batch sizes: the batch must be dynamic."""
    differences = []
    for batch in (1, 5):
        images = _images(model, batch)
        for mine, theirs in zip(
            _as_tuple(written(images)), _as_tuple(original(images)), strict=True
        ):
            differences.append((mine - theirs).abs().max())
    return float(torch.stack(differences).max())  # nan where one is, which Python's max may lose


def _as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def _meaning(model: MultiTaskModel, task: str | None) -> str:
    """Say as JSON how images are made ready, and of every task what its output means."""
    tasks = [each for each in model.config["tasks"] if task in (None, each["name"])]
    return json.dumps({"input": model.config["input"], "tasks": tasks})


def _describe(model: MultiTaskModel, task: str) -> dict[str, Any]:
    """How to build one task's network, and how images are made ready for it."""
    config = model.config
    return {
        "task": task,
        "timm": {
            "model_name": config["backbone"]["name"],
            "in_chans": config["input"]["shape"][0],
            "num_classes": config["backbone"]["features"],
            **config["backbone"]["args"],
        },
        **_read(model, task),
        **heads_of(config).describe(task),
        "rotated": config.get("rotated", False),  # the head file then begins with a rotation
        "output": next(spec for spec in config["tasks"] if spec["name"] == task),
        "input": config["input"],
    }
