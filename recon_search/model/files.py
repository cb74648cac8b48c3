"""The model directory: read back, strictly, and copied whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from recon_search import artefact
from recon_search.disk import describe
from recon_search.errors import ArtefactError, FileError, ReconSearchError, shortened
from recon_search.graph.branch import branch
from recon_search.graph.example import example_input
from recon_search.graph.split import Split
from recon_search.model.backbone import create_backbone
from recon_search.model.copies import change_copies
from recon_search.model.described import check_config
from recon_search.model.foreign import backbone_of, check_heads, check_size
from recon_search.model.heads import create_heads
from recon_search.model.network import FORMAT, MultiTaskModel, build_model
from recon_search.model.pyramid import Pyramid, pad, reductions_of
from recon_search.model.rotation import add_rotations
from recon_search.recipe import BackboneConfig, CopyConfig, HeadsConfig
from recon_search.tasks.classes import Classes
from recon_search.tasks.registry import create_task

FILES = "config.json", "model.safetensors", "split.json"
"""Of a model directory."""

UNSEALED = "recon-search/model/2"
"""Without digests."""
FIRST_FORMAT = "recon-search/model/1"
EARLIER = UNSEALED, FIRST_FORMAT


def load(
    path: str | Path,
    *,
    heads: Mapping[str, nn.Module] | None = None,
    backbone: nn.Module | None = None,
) -> MultiTaskModel:
    """Load a model directory, in eval mode on the CPU.

    Args:
        path: the directory.
        heads: modules to load the heads' weights into, by task, where they are of one's own and
            the directory does not name them by import path; taken as they are, not copied.
        backbone: a plain module to load the backbone's weights into, where it is not one of timm
            that the directory names; left untouched.

    Raises:
        ArtefactError: a file is missing or damaged, or names and shapes do not fit.
        SplitError: the split belongs to another backbone.
    """
    path = Path(path)
    described = path / "config.json"
    config = read_config(path)
    state = _read_state(path)
    split = Split.load(path / "split.json")
    _check_given(config, path, heads, backbone)
    try:
        if config["format"] == FIRST_FORMAT:
            config = _from_first(config)
        plain = None
        if backbone is None:
            plain = backbone_of(config["backbone"], described)
            shape = config["input"]["shape"]
            check_size(plain, shape, sum(tensor.numel() for tensor in state.values()), described)
        if heads is None:
            check_heads(heads_of(config), described)
        if heads is None and plain is not None:
            tasks = [create_task(spec) for spec in config["tasks"]]
            if (names := tuple(task.name for task in tasks)) != split.tasks:
                raise ArtefactError(
                    f"{path} must name the same tasks in config.json and split.json, found "
                    f"{', '.join(names)} and {', '.join(split.tasks)}. Export the model again."
                )
            model = build_model(plain, heads_of(config), tasks, shape=shape, split=split)
        else:
            model = _assemble(config, split, heads, backbone, plain)
    except ReconSearchError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{described}: {shortened(str(error))}") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"{described} must describe backbone, head, tasks and input, found no "
            f"{' '.join(str(error).split())[:300]}. Export the model again."
        ) from None
    model.config = {key: value for key, value in config.items() if key != "format"}
    if config.get("rotated", False):
        add_rotations(model.heads)
    if "copies" in config:
        change_copies(model, CopyConfig.model_validate(config["copies"]))
    _load_strictly(model, state, path / "model.safetensors")
    return model.eval()


def read_config(path: Path) -> dict[str, Any]:
    """Read the config of a model directory, which people may add to.

    Raises:
        ArtefactError: it is missing, damaged, changed, or says what it may not.
    """
    described, inside = path / "config.json", path / "model"
    if not described.exists() and (inside / "config.json").is_file():
        raise ArtefactError(
            f"A model directory is needed, found what holds one at {path}. Give {inside}."
        )
    config = artefact.read_object(
        described, "model's config.json", FORMAT, *EARLIER, by_hand=True, finite=False
    )
    check_config(config, described)
    return config


def check_whole(path: Path) -> None:
    """Make sure that a model directory has its three files, undamaged; no network is made.

    Raises:
        ArtefactError: one is missing or damaged.
    """
    read_config(path)
    _read_state(path)
    Split.load(path / "split.json")


def _read_state(path: Path) -> dict[str, Tensor]:
    return artefact.read_tensors(path / "model.safetensors", "model file", FORMAT, *EARLIER)[0]


def _check_given(
    config: Mapping[str, Any],
    path: Path,
    heads: Mapping[str, nn.Module] | None,
    backbone: nn.Module | None,
) -> None:
    """Refuse a directory that needs more than it was given to be loaded."""
    for key, given, what in (
        ("backbone", backbone, "backbone=MODULE"),
        ("head", heads, "heads={task: MODULE}"),
    ):
        if key not in config and given is None:
            raise ArtefactError(
                f"{path / 'config.json'} must say how its {key} is made, it was saved with one of "
                f"its author's own. Pass recon_search.load(path, {what})."
            )


def _assemble(
    config: Mapping[str, Any],
    split: Split,
    heads: Mapping[str, nn.Module] | None,
    backbone: nn.Module | None,
    plain: BackboneConfig | None,
) -> MultiTaskModel:
    """Put a model together from modules that the caller has made."""
    if backbone is None:
        assert plain is not None
        backbone = create_backbone(plain, in_chans=config["input"]["shape"][0])
    maps = config.get("maps", {})
    levels, multiple = maps.get("levels"), maps.get("multiple", 1)
    branched = branch(backbone, split, call=maps.get("reads", "forward"), levels=levels)
    if heads is None:
        tasks = [create_task(spec) for spec in config["tasks"]]
        found = branched(pad(example_input(backbone), multiple)).values()
        width = next((own.shape[1] for own in found if isinstance(own, Tensor)), 0)
        pyramid = None
        if maps:
            channels, reductions = reductions_of(backbone)
            pyramid = Pyramid(tuple(channels), tuple(reductions), multiple).at(levels)
        heads = create_heads(heads_of(config), width, tasks, pyramid=pyramid)
    if missing := [task for task in split.tasks if task not in heads]:
        raise ArtefactError(
            f"heads must hold a module for each of {', '.join(split.tasks)}, found none for "
            f"'{missing[0]}'. Add it."
        )
    return MultiTaskModel(
        branched, {task: heads[task] for task in split.tasks}, config, multiple=multiple
    )


def heads_of(config: Mapping[str, Any]) -> HeadsConfig:
    """Return the heads that the config of a model directory describes."""
    found = {key: config[key] for key in HeadsConfig.model_fields if key in config}
    return HeadsConfig.model_validate({"head": config["head"], **found})


def _from_first(config: Mapping[str, Any]) -> dict[str, Any]:
    """Bring a first config.json, whose tasks were numbers of classes, to the present form."""
    tasks = [Classes(name, n_classes).spec() for name, n_classes in config["tasks"].items()]
    return {**config, "tasks": tasks}


def _load_strictly(model: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    own = model.state_dict()
    for name, tensor in state.items():
        if name in own and own[name].is_floating_point() != tensor.is_floating_point():
            raise ArtefactError(
                f"{source} must hold '{name}' as {own[name].dtype}, found {tensor.dtype}. Export "
                "the model again."
            )
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ArtefactError(
            f"{source} must hold exactly the tensors its config.json describes: "
            f"{' '.join(str(error).split())[:500]} Export the model again."
        ) from None


def copy_model(directory: Path, target: Path) -> None:
    """Copy the model of a training's folder to `target`, replacing what is there once it is whole.

    Raises:
        ArtefactError: it is incomplete or damaged; what is there stays.
        FileError: the disk refuses.
    """
    try:
        check_whole(directory / "model")
    except ReconSearchError as error:
        raise ArtefactError(f"{error} Or delete {directory} to train anew.") from None
    with artefact.folder_beside(target) as place:
        new, old = place / "new", place / "old"
        try:
            new.mkdir()
            for file in (directory / "model").iterdir():
                (new / file.name).write_bytes(file.read_bytes())
            if target.is_dir():
                target.rename(old)
            new.rename(target)
        except OSError as error:
            if old.exists():
                old.rename(target)
            raise FileError(describe(error, target, "written")) from error
