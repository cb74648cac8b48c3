"""What a file of somebody else may ask for: networks made of plain values, and nothing beside.

A model directory or a split names its backbone, heads and tasks. Making them fetches nothing, opens
no other file, and calls nothing that is not a network or a task. A recipe is one's own and may.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from pydantic import ValidationError
from torch import nn

from recon_search.errors import ArtefactError, SplitError, nearest
from recon_search.graph.split import Split
from recon_search.imports import import_callable, is_import_path, is_standard
from recon_search.model.backbone import create_backbone
from recon_search.model.plain import find_fault, short
from recon_search.model.room import check_room
from recon_search.recipe import BackboneConfig, HeadConfig, HeadsConfig, NeckConfig


def backbone_of(record: Mapping[str, Any], source: str | Path) -> BackboneConfig:
    """Return the backbone that a file names, with random weights.

    Args:
        record: `name`, `args`, `features` and `levels`.
        source: names the file in the error.

    Raises:
        ArtefactError: it asks for more than a network of timm's made of plain values.
    """
    name, args = record.get("name"), record.get("args", {})
    more = {key: record[key] for key in ("features", "levels") if key in record}
    if not isinstance(name, str) or not timm.is_model(name):
        hint = nearest(str(name), timm.list_models()) if isinstance(name, str) else ""
        raise ArtefactError(
            f"{source} must name a backbone of timm's, got {short(name)}.{hint} Only a recipe may "
            "name one of a hub or a folder."
        )
    if (fault := find_fault(args)) is not None:
        raise ArtefactError(
            f"{source} must make its backbone of plain values, `backbone.{fault.place}` "
            f"{fault.reason}, got {short(fault.value)}. Do not trust the file; only a recipe may "
            "ask for that."
        )
    try:
        return BackboneConfig(name=name, args=args, **more)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise ArtefactError(
            f"{source} must describe its backbone, `{where}` {problem['msg'].lower()}, got "
            f"{short(problem['input'])}. Write it again."
        ) from None


def recorded_backbone(split: Split, source: str | Path) -> BackboneConfig:
    """Return the backbone that a split file says it was made for.

    Raises:
        SplitError: it does not say.
        ArtefactError: as `backbone_of`.
    """
    record = split.backbone
    if not {"name", "args"} <= set(record):
        raise SplitError(
            f"A split to show must say its backbone's timm name and arguments, {source} says "
            f"{short(dict(record))}. Write it again with recon-search split."
        )
    return backbone_of(record, source)


def check_size(config: BackboneConfig, shape: Sequence[int], most: int, source: str | Path) -> None:
    """Refuse a backbone that holds more numbers than the file of its weights, before it is made.

    Raises:
        ArtefactError: with both numbers.
        BackboneError: timm cannot make it, or it does not take images of that shape.
        RecipeError: such images do not fit into memory.
    """
    with torch.device("meta"):
        plain = create_backbone(config, in_chans=shape[0])
    n = sum(parameter.numel() for parameter in plain.parameters())
    if n > most:
        raise ArtefactError(
            f"{source} must describe the network whose weights lie beside it, {config.name} with "
            f"its arguments has {n:,} numbers, the weights have {most:,}. Export the model again."
        )
    check_room(config, plain, shape)


def check_heads(heads: HeadsConfig, source: str | Path) -> None:
    """Refuse heads and necks to import that are no modules, and what makes none.

    A function is called to know what it makes, so those of Python's own library are refused.

    Raises:
        ArtefactError: naming it.
        RecipeError: it cannot be imported.
    """
    parts: list[HeadConfig | NeckConfig] = [heads.head, *heads.heads.values()]
    for each in [*parts, *heads.necks.values()]:
        if (fault := find_fault(each.args)) is not None:
            raise ArtefactError(
                f"{source} must make its heads of plain values, `{fault.place}` is "
                f"{short(fault.value)}. Do not trust the file, or pass recon_search.load(path, "
                "heads=...)."
            )
        if not is_import_path(each.kind):
            continue
        found = None if is_standard(each.kind) else import_callable(each.kind, "`head.kind`")
        if isinstance(found, type) and not issubclass(found, nn.Module):
            found = None
        if is_standard(str(getattr(found, "__module__", None))):  # as of "torch:os.makedirs"
            found = None
        if found is None or not (isinstance(found, type) or hasattr(found, "__code__")):
            raise ArtefactError(
                f"{source} must make its heads by a torch.nn.Module or a function that returns "
                f"one, got '{each.kind}'. Do not trust the file."
            )
