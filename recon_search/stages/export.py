"""Hand a trained model over: plain timm weights, safetensors, torch.export or ONNX.

Every file is run after it was written, and compared with the model it came from.
"""

from __future__ import annotations

import math
from pathlib import Path
from urllib.parse import quote

from recon_search import artefact
from recon_search.disk import refuse_same
from recon_search.errors import ArtefactError, ReconSearchError, SplitError, nearest
from recon_search.model.copies import fold_copies
from recon_search.model.files import FILES, copy_model, load
from recon_search.model.network import MultiTaskModel
from recon_search.runs.comparison import Comparison
from recon_search.stages.formats import EXPORTERS


def export(model_directory: Path, kind: str, task: str | None, target: Path) -> float:
    """Write a model for deployment and check the written file.

    Args:
        model_directory: what a run left in `model`.
        kind: a key of `EXPORTERS`.
        task: one of the model's tasks; None exports all of them, which `timm` cannot.
        target: the file to write, for `safetensors` without a task the folder.

    Returns:
        The largest difference between what the written file computes and what the model does, on
        random images.

    Raises:
        SplitError: the model has no such task, or `timm` is asked for without one.
        ReconSearchError: a package that the format needs is not installed.
    """
    _check_target(kind, task, target)
    beside = [target.with_suffix(".json")] if target.suffix else []
    for place in (target, *beside):
        refuse_same(place, "--out", [model_directory, *(model_directory / name for name in FILES)])
    model = load(model_directory)
    if task is not None and task not in model.tasks:
        raise SplitError(
            f"--task must be one of {', '.join(model.tasks)}, got '{task}'."
            f"{nearest(task, model.tasks)}"
        )
    _check_finite(model)
    fold_copies(model)
    with artefact.folder_beside(target) as folder:
        written = folder / target.name
        difference = EXPORTERS[kind](model, task, written)
        if not math.isfinite(difference):
            raise ArtefactError(
                f"A model to export must give finite numbers, {model_directory} gives others for "
                "random images. Train it anew with a lower train.lr."
            )
        artefact.bring(folder, target.parent)
    return difference


def _check_finite(model: MultiTaskModel) -> None:
    """Refuse a model that learned numbers which are none.

    Raises:
        ArtefactError: naming the first parameter.
    """
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise ArtefactError(
                f"A model to export must have finite parameters, '{name}' has others. Train it "
                "anew with a lower train.lr."
            )


def _check_target(kind: str, task: str | None, target: Path) -> None:
    """Refuse a file whose name says that it is something else."""
    wanted = default_target(kind, task).suffix
    if wanted and target.suffix != wanted:
        raise ReconSearchError(
            f"--out must end in {wanted} for --format {kind}, got {target}. Change the ending."
        )


def hand_over(comparison: Comparison, out: Path) -> None:
    """Copy the best model of a comparison to `model`, and export each task as plain timm weights.

    Args:
        comparison: says which training was best.
        out: the run folder; `export` holds one file a task.
    """
    copy_model(Path(comparison.best.directory), out / "model")
    for task in comparison.single:
        export(
            out / "model", "timm", task, out / "export" / f"{quote(task, safe=' +')}.safetensors"
        )


def _plain(task: str) -> str:
    """What to call a task's file: its name, as in a URL where a path would read it otherwise."""
    return quote(task, safe=" +")


def default_target(kind: str, task: str | None) -> Path:
    """The file that is written where no other is named."""
    suffix = {"timm": ".safetensors", "safetensors": ".safetensors", "onnx": ".onnx"}.get(
        kind, ".pt2"
    )
    if kind == "safetensors" and task is None:
        return Path("model-export")
    return Path((_plain(task) if task else "model") + suffix)
