"""Scores as they are kept: the file, and which scores may be added up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from recon_search import artefact
from recon_search.conflict.packing import pack
from recon_search.conflict.sums import BINS, Sums
from recon_search.errors import ArtefactError
from recon_search.records import fit

FORMAT = "recon-search/scores/5"
PLAIN = "recon-search/scores/4"
"""Sums as they are in memory, not packed."""
UNSEALED = "recon-search/scores/3"
"""Without a digest of all of it."""
MEASURED = UNSEALED
"""What names the measurement in the identity of a training; the file's seal changes nothing."""
FORMER = "recon-search/scores/2"
"""Where no task was ever absent: every pair has the steps of the window, counts of pairs pooled."""


class Measured(Protocol):
    """What scores are of."""

    layers: tuple[str, ...]
    tasks: tuple[str, ...]
    metadata: dict[str, Any]


def write_scores(path: str | Path, sums: Sums, metadata: Mapping[str, Any]) -> None:
    """Write a scores file atomically; equal input, equal bytes."""
    whole = {**metadata, "format": FORMAT, "bins": BINS}
    artefact.write_tensors(path, pack(sums), json.loads(json.dumps(whole, sort_keys=True)))


def read_scores(path: str | Path) -> tuple[Sums, Any, Any, dict[str, Any]]:
    """Read a scores file: its sums, packed or not, layers, tasks and further metadata.

    Raises:
        ArtefactError: the file is missing, damaged, or of another format.
    """
    tensors, metadata = artefact.read_tensors(path, "scores file", FORMAT, PLAIN, UNSEALED, FORMER)
    for derived in ("format", "steps", "bins"):
        metadata.pop(derived, None)
    if not {"layers", "tasks"} <= set(metadata):
        raise ArtefactError(f"{path} must name layers and tasks, found neither. Probe again.")
    known = fit(_Metadata, metadata, path, "A scores file", "Probe again.")
    if known.layer_infos and tuple(info.name for info in known.layer_infos) != known.layers:
        raise ArtefactError(
            f"{path} must describe each of its {len(known.layers)} layers in `layer_infos`, it "
            f"describes {len(known.layer_infos)}, others or in another order. Probe again."
        )
    return tensors, metadata.pop("layers"), metadata.pop("tasks"), metadata


class _Info(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    name: str
    type: str = ""
    n_parameters: NonNegativeInt = 0
    is_norm: bool = False


class _Metadata(BaseModel):
    """What is known of metadata; further keys are whoever's who kept the scores."""

    model_config = ConfigDict(strict=True, extra="allow")

    layers: tuple[str, ...]
    tasks: tuple[str, ...]
    backbone: dict[str, Any] = {}
    layer_infos: list[_Info] = []
    recipe: str = ""
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)] = [0]
    n_frozen: NonNegativeInt = 0


def check_addable(one: Measured, other: Measured) -> None:
    """Refuse to add scores of different things.

    Raises:
        ArtefactError: naming both.
    """
    ours, theirs = (
        backbone.get("digest") if isinstance(backbone, Mapping) else None
        for backbone in (each.metadata.get("backbone") for each in (one, other))
    )
    if ours and theirs and ours != theirs:
        raise ArtefactError(
            f"Scores can be added only for one backbone, got digests {ours} and {theirs}. "
            "Probe one recipe."
        )
    if (one.layers, one.tasks) != (other.layers, other.tasks):
        raise ArtefactError(
            "Scores can be added only for equal layers and tasks, got "
            f"{len(one.layers)} layers of {', '.join(one.tasks)} and "
            f"{len(other.layers)} layers of {', '.join(other.tasks)}. Probe one recipe."
        )
