"""Hand a trained model over: one task as a plain timm state dict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from recon_search import artefact
from recon_search.errors import ArtefactError, SplitError, nearest
from recon_search.recipe import BackboneConfig
from recon_search.training.model import MultiTaskModel, create_backbone, load


def export_timm(model_directory: Path, task: str, target: Path) -> float:
    """Write one task's backbone as a state dict that an untouched timm model loads strictly.

    Beside `target` come `<stem>.head.safetensors`, the task's head, and `<stem>.json`, the
    arguments of `timm.create_model` and how images are made ready.

    Args:
        model_directory: what a run left in `model`.
        task: one of the model's tasks.
        target: the `.safetensors` file to write.

    Returns:
        The largest difference between the features of the written file in a plain timm model and
        those of the model itself, on random images.

    Raises:
        SplitError: the model has no such task.
    """
    model = load(model_directory)
    check_task(model, task)
    config = model.config
    artefact.write_tensors(target, model.backbone.task_state_dict(task), {"task": task})
    artefact.write_tensors(
        target.with_suffix(".head.safetensors"), model.heads[task].state_dict(), {"task": task}
    )
    in_chans = config["input"]["shape"][0]
    description: dict[str, Any] = {
        "task": task,
        "timm": {
            "model_name": config["backbone"]["name"],
            "in_chans": in_chans,
            "num_classes": config["backbone"]["features"],
            **config["backbone"]["args"],
        },
        "head": config["head"],
        "n_classes": config["tasks"][task],
        "input": config["input"],
    }
    artefact.write_json(target.with_suffix(".json"), description)
    return _difference(model, task, target)


def check_task(model: MultiTaskModel, task: str) -> None:
    """Refuse a task the model does not have.

    Raises:
        SplitError: with near names.
    """
    if task not in model.tasks:
        raise SplitError(
            f"--task must be one of {', '.join(model.tasks)}, got '{task}'."
            f"{nearest(task, model.tasks)}"
        )


@torch.no_grad()
def _difference(model: MultiTaskModel, task: str, target: Path) -> float:
    """Load the written file into plain timm and compare."""
    backbone_config = BackboneConfig(**model.config["backbone"])
    shape = model.config["input"]["shape"]
    plain = create_backbone(backbone_config, in_chans=shape[0])
    state, _ = artefact.read_tensors(target, "exported state dict")
    try:
        plain.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ArtefactError(
            f"{target} must load strictly into timm's {backbone_config.name}: {error}"
        ) from None
    images = torch.randn(4, *shape)
    features = model.backbone(images, [task])[task]
    return float((plain.eval()(images) - features).abs().max())
