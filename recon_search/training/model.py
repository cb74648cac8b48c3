"""The multi-task model: a branched timm backbone and one head a task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from recon_search import artefact
from recon_search.errors import ArtefactError, BackboneError, nearest
from recon_search.graph.branch import branch
from recon_search.graph.branched import BranchedBackbone
from recon_search.graph.layers import layers
from recon_search.graph.split import Split
from recon_search.recipe import BackboneConfig, HeadConfig
from recon_search.training.rotation import (
    RotatedHead,
    add_rotations,
    fold_rotations,
    has_rotations,
)

FORMAT = "recon-search/model/1"


class MultiTaskModel(nn.Module):
    """A branched backbone whose features each task's head reads.

    Args:
        backbone: gives `{task: features}`.
        heads: one head a task.
        config: what `save` needs to build the model anew (see `build_model`).
    """

    def __init__(
        self, backbone: BranchedBackbone, heads: Mapping[str, nn.Module], config: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleDict(dict(heads))
        self.config = dict(config)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return self.backbone.tasks

    @property
    def n_parameters(self) -> int:
        """Learned numbers: parameters, and the rotations that heads carry."""
        rotations = [head.rotation for head in self.heads.values() if isinstance(head, RotatedHead)]
        return sum(tensor.numel() for tensor in (*self.parameters(), *rotations))

    def forward(self, x: Tensor, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Compute `{task: output}` for images (B, C, H, W), of all tasks or of those named."""
        features = self.backbone(x, tasks)
        return {task: self.heads[task](value) for task, value in features.items()}

    def save(self, directory: str | Path, **extra: Any) -> None:
        """Write a model directory: `model.safetensors`, `config.json`, `split.json`.

        Rotations are folded into heads that begin with a linear layer; others keep theirs.

        Args:
            directory: made if needed.
            extra: further JSON values for `config.json`, such as `metrics`.
        """
        directory = Path(directory)
        self.backbone.split.save(directory / "split.json")
        heads = nn.ModuleDict(dict(self.heads.items()))
        fold_rotations(heads)
        backbone = self.backbone.state_dict(prefix="backbone.")
        state = {**backbone, **heads.state_dict(prefix="heads.")}
        artefact.write_tensors(directory / "model.safetensors", state, {"format": FORMAT})
        config = {"format": FORMAT, **self.config, "rotated": has_rotations(heads), **extra}
        artefact.write_json(directory / "config.json", config)


def load(path: str | Path) -> MultiTaskModel:
    """Load a model directory, in eval mode on the CPU.

    Raises:
        ArtefactError: a file is missing or damaged, or names and shapes do not fit.
        SplitError: the split belongs to another backbone.
    """
    path = Path(path)
    config = artefact.read_json(path / "config.json", "model's config.json")
    artefact.check_format(config, FORMAT, path / "config.json")
    state, metadata = artefact.read_tensors(path / "model.safetensors", "model file")
    artefact.check_format(metadata, FORMAT, path / "model.safetensors")
    split = Split.load(path / "split.json")
    try:
        model = build_model(
            BackboneConfig(**{**config["backbone"], "weights": None}),
            HeadConfig(**config["head"]),
            config["tasks"],
            in_chans=config["input"]["shape"][0],
            split=split,
        )
    except (KeyError, TypeError) as error:
        raise ArtefactError(
            f"{path / 'config.json'} must describe backbone, head, tasks and input, found no "
            f"{error}. Export the model again."
        ) from None
    model.config = {key: value for key, value in config.items() if key != "format"}
    if config.get("rotated", False):
        add_rotations(model.heads)
    _load_strictly(model, state, path / "model.safetensors")
    return model.eval()


def build_model(
    backbone: BackboneConfig,
    head: HeadConfig,
    n_classes: Mapping[str, int],
    *,
    in_chans: int,
    split: Split | None = None,
    init: str = "copy",
    seed: int = 0,
) -> MultiTaskModel:
    """Build a model from its description.

    Equal seeds give equal weights to every layer and head that models have in common, whatever
    their split and their other tasks: comparisons are paired.

    Args:
        backbone: timm model and arguments.
        head: kind of head, the same for all tasks.
        n_classes: classes of each task.
        in_chans: channels of the images.
        split: which layers to branch; None branches nothing.
        init: `copy` starts the copies of a layer equal, `fresh` draws each anew.
        seed: seed of the initialisation.

    Raises:
        BackboneError: timm does not know the backbone or refuses its arguments.
        SplitError: the split does not fit the backbone.
    """
    tasks = tuple(n_classes)
    eager = create_backbone(backbone, in_chans=in_chans, seed=seed)
    branched = branch(eager, split if split is not None else Split(tasks, {}))
    if init == "fresh":
        _draw_copies(branched, backbone, in_chans, seed)
    width = backbone.features or eager.num_features
    assert isinstance(width, int)
    heads = {}
    for task, classes in n_classes.items():
        with seeded(seed, task):
            heads[task] = _create_head(head, width, classes)
    config = {
        "backbone": backbone.model_dump(exclude={"weights"}),
        "head": head.model_dump(),
        "tasks": dict(n_classes),
    }
    return MultiTaskModel(branched, heads, config)


def create_backbone(config: BackboneConfig, *, in_chans: int, seed: int = 0) -> nn.Module:
    """Create the plain timm model.

    Raises:
        BackboneError: timm does not know the name, refuses an argument, or cannot load the weights.
    """
    if not timm.is_model(config.name):
        known = timm.list_models()
        raise BackboneError(
            f"`backbone.name` must be a timm model, got '{config.name}'."
            f"{nearest(config.name, known)}"
        )
    arguments = {"in_chans": in_chans, "num_classes": config.features, **config.args}
    if config.weights is not None:
        arguments |= _pretrained_arguments(config.weights)
    try:
        with seeded(seed, "backbone"):
            model: nn.Module = timm.create_model(config.name, **arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError, KeyError) as error:
        raise BackboneError(
            f"timm must be able to create {config.name} with {arguments}, got: "
            f"{' '.join(str(error).split())} Check `backbone.args` and `backbone.weights`."
        ) from None
    return model


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Seed torch for a purpose inside the block, and put the global state back after it."""
    with torch.random.fork_rng():
        torch.manual_seed(int(artefact.digest([seed, purpose])[:12], 16))
        yield


def _pretrained_arguments(weights: str) -> dict[str, Any]:
    if not weights.endswith(".safetensors") or not Path(weights).is_file():
        raise BackboneError(
            f"`backbone.weights` must be a local .safetensors file, got {weights}. "
            "Convert a pickled checkpoint with safetensors first."
        )
    return {"pretrained": True, "pretrained_cfg_overlay": {"file": weights, "num_classes": -1}}


def _create_head(config: HeadConfig, width: int, classes: int) -> nn.Sequential:
    activations = {"none": nn.Identity, "relu": nn.ReLU, "gelu": nn.GELU}
    parts: list[nn.Module] = [activations[config.activation]()]
    if config.kind == "mlp":
        parts += [nn.Linear(width, config.hidden), nn.ReLU()]
        width = config.hidden
    return nn.Sequential(*parts, nn.Linear(width, classes))


@torch.no_grad()
def _draw_copies(
    branched: BranchedBackbone, config: BackboneConfig, in_chans: int, seed: int
) -> None:
    """Initialise the second and later copies of every split layer independently."""
    blocks_by_layer = branched.layers()
    for index in range(1, len(branched.tasks)):
        fresh = layers(
            create_backbone(
                config.model_copy(update={"weights": None}),
                in_chans=in_chans,
                seed=int(artefact.digest([seed, "copy", index])[:8], 16),
            )
        )
        for name, blocks in blocks_by_layer.items():
            if index < len(blocks):
                for parameter, drawn in zip(blocks[index].parameters, fresh[name], strict=True):
                    parameter.copy_(drawn)


def _load_strictly(model: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ArtefactError(
            f"{source} must hold exactly the tensors its config.json describes: "
            f"{' '.join(str(error).split())} Export the model again."
        ) from None
