"""The model directory: read back, strictly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from recon_search import artefact
from recon_search.errors import ArtefactError
from recon_search.graph.split import Split
from recon_search.model.network import FORMAT, MultiTaskModel, build_model
from recon_search.model.rotation import add_rotations
from recon_search.recipe import BackboneConfig, HeadConfig
from recon_search.tasks.classes import Classes
from recon_search.tasks.registry import create_task

FIRST_FORMAT = "recon-search/model/1"


def load(path: str | Path) -> MultiTaskModel:
    """Load a model directory, in eval mode on the CPU.

    Raises:
        ArtefactError: a file is missing or damaged, or names and shapes do not fit.
        SplitError: the split belongs to another backbone.
    """
    path = Path(path)
    config = artefact.read_json(path / "config.json", "model's config.json")
    artefact.check_format(config, FORMAT, path / "config.json", FIRST_FORMAT)
    state, metadata = artefact.read_tensors(path / "model.safetensors", "model file")
    artefact.check_format(metadata, FORMAT, path / "model.safetensors", FIRST_FORMAT)
    split = Split.load(path / "split.json")
    try:
        if config["format"] == FIRST_FORMAT:
            config = _from_first(config)
        model = build_model(
            BackboneConfig(**{**config["backbone"], "weights": None}),
            HeadConfig(**config["head"]),
            [create_task(spec) for spec in config["tasks"]],
            shape=config["input"]["shape"],
            split=split,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"{path / 'config.json'} must describe backbone, head, tasks and input, found no "
            f"{error}. Export the model again."
        ) from None
    model.config = {key: value for key, value in config.items() if key != "format"}
    if config.get("rotated", False):
        add_rotations(model.heads)
    _load_strictly(model, state, path / "model.safetensors")
    return model.eval()


def _from_first(config: Mapping[str, Any]) -> dict[str, Any]:
    """Bring a first config.json, whose tasks were numbers of classes, to the present form."""
    tasks = [Classes(name, n_classes).spec() for name, n_classes in config["tasks"].items()]
    return {**config, "tasks": tasks}


def _load_strictly(model: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ArtefactError(
            f"{source} must hold exactly the tensors its config.json describes: "
            f"{' '.join(str(error).split())} Export the model again."
        ) from None
