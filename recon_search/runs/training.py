"""One training, cached by content: baselines, joint, split and control networks, and probes."""

from __future__ import annotations

import functools
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from recon_search import artefact
from recon_search.conflict.scores import FORMAT, ConflictScores
from recon_search.data.dataset import MultiTaskData
from recon_search.data.registry import load_data
from recon_search.errors import BackboneError, RecipeError
from recon_search.graph.layers import backbone_digest, describe
from recon_search.graph.split import Split
from recon_search.recipe import BackboneConfig, DataConfig, Recipe, TrainConfig
from recon_search import parallel
from recon_search.training.loop import AfterEpoch, Report, evaluate, fit, normaliser
from recon_search.model.backbone import backbone_identity, create_backbone
from recon_search.model.files import load
from recon_search.model.network import MultiTaskModel, build_model
from recon_search.tasks.scoring import Metrics
from recon_search.views.display import Display


@dataclass(frozen=True)
class Training:
    """What is trained: everything its result depends on, and a label to show.

    Attributes:
        label: for tables and progress bars; not part of the identity.
        tasks: the tasks learned together; one for a single-task baseline.
        split: which layers are branched; None for none.
        train: how it is trained.
        backbone: the backbone, which a control may have widened.
        seed: of initialisation and batches.
        test: look at the test data at the end; not part of the identity.
        start: the training whose weights this one starts from; None starts from scratch.
    """

    label: str
    tasks: tuple[str, ...]
    split: Split | None
    train: TrainConfig
    backbone: BackboneConfig
    seed: int
    test: bool = True
    start: Training | None = None

    def directory(self, recipe: Recipe, out: Path) -> Path:
        """The folder of this training, named by the digest of what determines its result."""
        identity = {
            "data": recipe.data.model_dump(exclude={"root", "download"}),
            "backbone": self.backbone.model_dump(),
            "head": recipe.head.model_dump(),
            "train": _settle(self.train, recipe).model_dump(),
            "tasks": self.tasks,
            "split": None if self.split is None else self.split.digest,
            "init": recipe.split.init if self.split is not None else None,
            "seed": self.seed,
            "scores": FORMAT if self.train.measure_every else None,
            "start": None if self.start is None else self.start.directory(recipe, out).name,
        }
        return out / "trainings" / artefact.digest(identity)


def train(
    training: Training,
    recipe: Recipe,
    out: Path,
    device: torch.device,
    report: Report | None = None,
    after_epoch: AfterEpoch | None = None,
) -> dict[str, Any]:
    """Run a training, or go on with it, or take its result where it is done.

    Its folder then holds `result.json`, `metrics.jsonl`, `scores.safetensors` if conflicts were
    measured, and the model directory `model`.

    Returns:
        `label`, `tasks`, `method`, `seed`, `n_parameters` (heads included), `flops` (of one image's
        forward pass), `validation` and `test` metrics, `seconds`, `directory`.
    """
    directory = training.directory(recipe, out)
    finished = directory / "result.json"
    data = data_on(recipe.data, device)
    if finished.is_file():
        result: dict[str, Any] = artefact.read_json(finished, "result")
        if training.test and "test" not in result:
            model = load(directory / "model").to(device)
            result["test"] = _test(model, data, training.train)
            artefact.write_json(finished, result)
        if after_epoch is not None:
            for line in (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
                after_epoch(json.loads(line))
        return {**result, "directory": str(directory)}
    started = time.perf_counter()
    if training.start is not None:
        train(training.start, recipe, out, device, report)
    parallel.agree((training, recipe, out))  # other processes of a group wait for it, see `follow`
    model, scores, history = fit_training(training, recipe, out, device, report, after_epoch)
    result = {
        "label": training.label,
        "tasks": training.tasks,
        "method": training.train.method,
        "seed": training.seed,
        "n_parameters": model.n_parameters,
        "flops": count_flops(model, torch.zeros(1, *data.shape, device=device)),
        "validation": history[-1]["validation"],
        "seconds": round(time.perf_counter() - started, 2),
    }
    if training.test:
        result["test"] = _test(model, data, training.train)
    if scores is not None:
        scores.save(directory / "scores.safetensors")
    model.config |= _input_config(data)
    model.save(directory / "model", metrics={"validation": result["validation"]})
    artefact.write_json(finished, result)
    (directory / "checkpoint.safetensors").unlink(missing_ok=True)
    return {**result, "directory": str(directory)}


def fit_training(
    training: Training,
    recipe: Recipe,
    out: Path,
    device: torch.device,
    report: Report | None = None,
    after_epoch: AfterEpoch | None = None,
) -> tuple[MultiTaskModel, ConflictScores | None, list[dict[str, Any]]]:
    """Build a training's model and fit it: what all processes of a group do together.

    The training that it starts from is done.

    Returns:
        The model, its conflict scores if they were measured, and the history (see `fit`).
    """
    data = data_on(recipe.data, device)
    n_classes = {task: data.n_classes[task] for task in training.tasks}
    model = build_model(
        training.backbone,
        recipe.head,
        n_classes,
        in_chans=data.shape[0],
        split=training.split,
        init=recipe.split.init,
        seed=training.seed,
    ).to(device)
    if training.start is not None:
        _start_from(model, load(training.start.directory(recipe, out) / "model"))
    _check_input(model, data, training.backbone)
    scores = _empty_scores(training, recipe, data) if training.train.measure_every else None
    try:
        history = fit(
            model,
            data,
            _settle(training.train, recipe),
            seed=training.seed,
            directory=training.directory(recipe, out),
            scores=scores,
            report=report,
            after_epoch=after_epoch,
        )
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise RecipeError(
            f"Batches of {training.train.batch_size} ({parallel.size()} processes) are too small "
            f"for a normalisation of {training.backbone.name}. Raise train.batch_size."
        ) from None
    return model, scores, history


def train_with(
    recipe: Recipe, split_path: Path | None, out: Path, device: torch.device, console: Console
) -> dict[str, Any]:
    """Train the recipe's network with a saved split, whatever data set that was found on.

    Raises:
        SplitError: the split was made for another backbone, or its groups do not carry over.
    """
    data = data_on(recipe.data, device)
    split = None if split_path is None else load_split(split_path, recipe, device)
    label = f"{recipe.train.method}, {'unsplit' if split is None else 'split'}"
    training = Training(label, data.tasks, split, recipe.train, recipe.backbone, recipe.seed)
    with Display("train", 1, console) as display:
        return train(training, recipe, out, device, functools.partial(display.step, label))


def load_split(path: Path, recipe: Recipe, device: torch.device) -> Split:
    """Read a split, from whatever data set, for the recipe's tasks and backbone.

    Raises:
        SplitError: it was made for another backbone, or its groups do not carry over.
    """
    data = data_on(recipe.data, device)
    split = Split.load(path).for_tasks(data.tasks)
    split.check(create_backbone(recipe.backbone, in_chans=data.shape[0]))
    return split


def copy_model(result: dict[str, Any], target: Path) -> None:
    """Copy a training's model directory to `target`, replacing what is there."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(Path(result["directory"]) / "model", target)


@functools.lru_cache(maxsize=1)
def data_on(config: DataConfig, device: torch.device) -> MultiTaskData:
    """Load a data set onto a device, once for all trainings of a process."""
    return load_data(**config.model_dump()).to(device)


@torch.no_grad()
def count_flops(model: MultiTaskModel, images: torch.Tensor) -> int:
    """Count the floating point operations of a forward pass for all tasks, by torch's counter."""
    model.eval()
    with FlopCounterMode(display=False) as counter:
        model(images)
    return int(counter.get_total_flops())


def _test(model: MultiTaskModel, data: MultiTaskData, config: TrainConfig) -> Metrics:
    return evaluate(model, data.test, config, normaliser(data))


def _start_from(model: MultiTaskModel, trained: MultiTaskModel) -> None:
    """Give every task's path through `model` the weights of a trained model of the same tasks."""
    for task in model.tasks:
        model.backbone.load_task_state_dict(task, trained.backbone.task_state_dict(task))
    model.heads.load_state_dict(trained.heads.state_dict())


def _settle(config: TrainConfig, recipe: Recipe) -> TrainConfig:
    """Drop `train.options` where another method than `train.method` trains: it has its defaults."""
    if config.method == recipe.train.method:
        return config
    return config.model_copy(update={"options": {}})


def _empty_scores(training: Training, recipe: Recipe, data: MultiTaskData) -> ConflictScores:
    backbone = create_backbone(training.backbone, in_chans=data.shape[0])
    infos = describe(backbone)
    metadata = {
        "backbone": backbone_identity(training.backbone, backbone),
        "layer_infos": [
            {
                "name": info.name,
                "type": info.type,
                "n_parameters": info.n_parameters,
                "is_norm": info.is_norm,
            }
            for info in infos
        ],
        "recipe": artefact.digest(recipe.model_dump(exclude={"seed"})),
        "seeds": [training.seed],
    }
    names = [info.name for info in infos]
    return ConflictScores(names, training.tasks, metadata, replicated=True)


def _check_input(model: MultiTaskModel, data: MultiTaskData, config: BackboneConfig) -> None:
    """Try one image, so that a wrong size is one clear line and not a traceback."""
    try:
        model.eval()
        with torch.no_grad():
            model(torch.zeros(1, *data.shape, device=data.train.inputs.device))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise BackboneError(
            f"{config.name} must take images of shape {data.shape}, got: "
            f"{' '.join(str(error).split())[:300]}. Set backbone.args.img_size or data.canvas."
        ) from None


def _input_config(data: MultiTaskData) -> dict[str, Any]:
    """How images were made ready: what a user of the model must do as well."""
    mean, deviation = data.normalisation()
    return {
        "input": {
            "shape": data.shape,
            "mean": mean.flatten().tolist(),
            "std": deviation.flatten().tolist(),
            "scale": "pixels / 255, then (x - mean) / std",
        }
    }
