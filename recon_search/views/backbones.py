"""The backbones that timm has, and the layers of one, as rows and as tables."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

import timm
import torch
from rich.table import Table

from recon_search.errors import BackboneError, ReconSearchError, nearest
from recon_search.graph.layers import describe
from recon_search.graph.naming import block, short, stage
from recon_search.model.backbone import create_backbone
from recon_search.model.source import untrained
from recon_search.recipe import BackboneConfig


def backbone_rows(pattern: str = "*", *, sizes: bool = False) -> list[dict[str, Any]]:
    """The models whose name holds `pattern`, or matches it where it has wildcards.

    Args:
        pattern: text, or a shell pattern.
        sizes: give `n_parameters` without the classifier too; None where timm cannot tell.

    Returns:
        Rows with `name`.

    Raises:
        BackboneError: no name matches.
    """
    has_wildcards = any(mark in pattern for mark in "*?[")
    names = timm.list_models(pattern if has_wildcards else f"*{pattern}*")
    if not names:
        raise BackboneError(
            f"PATTERN must match the name of a timm model, '{pattern}' matches none."
            f"{nearest(pattern, timm.list_models())} List them all with recon-search ls backbones."
        )
    if not sizes:
        return [{"name": name} for name in names]
    return [{"name": name, "n_parameters": _size(name)} for name in names]


def backbone_table(rows: list[dict[str, Any]]) -> Table:
    """Names and parameter counts."""
    table = Table(title="Backbones, without classifier", title_justify="left")
    table.add_column("backbone", no_wrap=True)
    table.add_column("parameters", justify="right")
    for row in rows:
        size = row["n_parameters"]
        table.add_row(row["name"], "unknown" if size is None else short(size))
    return table


def layer_rows(name: str, arguments: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The splittable layers of a model: `layer`, `type`, `shape`, `n_parameters`, `stage`, `block`.

    Args:
        name: of a timm model.
        arguments: `key=value` for timm, values in TOML notation or bare strings. Without
            `num_classes` the model has no classifier.

    Raises:
        BackboneError: timm does not know the model, refuses an argument, or it cannot be traced.
    """
    args = dict(_parse(text) for text in arguments)
    in_chans, n_classes = args.pop("in_chans", 3), args.pop("num_classes", 0)
    config = untrained(BackboneConfig(name=name, args=args)).model_copy(
        update={"features": n_classes}
    )
    with torch.device("meta"):
        backbone = create_backbone(config, in_chans=in_chans)
    infos = describe(backbone)
    stages = {stage(info.name) for info in infos}  # a stage may own layers outside its blocks
    return [
        {
            "layer": info.name,
            "type": info.type,
            "shape": list(info.shape),
            "n_parameters": info.n_parameters,
            "stage": own if (own := block(info.name)) in stages else stage(info.name),
            "block": block(info.name),
        }
        for info in infos
    ]


def layer_table(name: str, rows: list[dict[str, Any]]) -> Table:
    """The layers in order of first use, a line after each block."""
    total = short(sum(row["n_parameters"] for row in rows))
    table = Table(
        title=f"{name}: {len(rows)} splittable layers, {total} parameters", title_justify="left"
    )
    table.add_column("#", justify="right", style="dim", no_wrap=True)
    table.add_column("layer", no_wrap=True)
    table.add_column("type", style="dim", no_wrap=True)
    table.add_column("shape", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("stage", style="dim")
    for place, row in enumerate(rows, start=1):
        following = rows[place]["block"] if place < len(rows) else None
        table.add_row(
            str(place),
            row["layer"],
            row["type"],
            "x".join(map(str, row["shape"])),
            f"{row['n_parameters']:,}",
            row["stage"],
            end_section=following != row["block"],
        )
    return table


def _size(name: str) -> int | None:
    try:
        with torch.device("meta"):
            backbone = create_backbone(BackboneConfig(name=name), in_chans=3)
    except ReconSearchError:
        return None
    return sum(parameter.numel() for parameter in backbone.parameters())


def _parse(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise BackboneError(f"--args must be key=value, got '{text}'. Example: --args img_size=64")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value
