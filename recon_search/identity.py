"""What a result depends on, and nothing else: one identity for trainings, probes, studies, runs.

Settings are taken without the keys that have their defaults, so a key that a later version adds, at
the default that keeps the old behaviour, changes no identity. Files count by their content, never
by their path. Labels, the place of the data, and how many trials are wanted do not count.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from recon_search.artefact import digest
from recon_search.disk import refuse_special
from recon_search.errors import ArtefactError
from recon_search.recipe import (
    BackboneConfig,
    CopyConfig,
    DataConfig,
    Recipe,
    TrainConfig,
)

WHEREABOUTS = {"root", "file", "download", "workers", "cache"}
"""Keys of `[data]` that say where files are and how they are loaded, not what they hold."""

FRESH = 2_000_000_000
"""Nanoseconds after a change in which another may leave a file's times as they are."""

LOCAL = "local-dir:"
"""How timm marks the name of a folder that holds a model."""


def settings(section: BaseModel, *, without: set[str] | None = None) -> dict[str, Any]:
    """Return the keys of a section that differ from their defaults, as JSON values."""
    return section.model_dump(mode="json", exclude_defaults=True, exclude=without)


def content(path: str | Path) -> str:
    """Return a digest of a file's content, or of a folder's files by name.

    Raises:
        ArtefactError: there is no such file, or it cannot be read.
    """
    try:
        path = Path(path).resolve()
        if path.is_dir():
            return digest({file.name: content(file) for file in path.iterdir() if file.is_file()})
        state = path.stat()
        if time.time_ns() - state.st_ctime_ns < FRESH:
            return _read(path)
        return _content(path, state.st_ino, state.st_ctime_ns, state.st_mtime_ns, state.st_size)
    except OSError as error:
        raise ArtefactError(
            f"A file that the recipe names must be readable, {path} is not ({error.strerror}). "
            "Check the path."
        ) from None


@functools.lru_cache(maxsize=64)
def _content(path: Path, *state: int) -> str:
    return _read(path)


def _read(path: Path) -> str:
    refuse_special(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def of_data(config: DataConfig, fingerprint: str) -> dict[str, Any]:
    """Name the data: what the recipe says of it, and what the source says of its files."""
    found = settings(config, without=WHEREABOUTS)
    return {**found, "fingerprint": fingerprint} if fingerprint else found


def of_backbone(config: BackboneConfig) -> dict[str, Any]:
    """Name a backbone and the weights it begins with."""
    found = settings(config, without={"weights"})
    if config.weights is not None:
        found["weights"] = content(config.weights)
    if config.name.startswith(LOCAL):
        found["name"] = LOCAL + content(config.name.removeprefix(LOCAL))
    return found


def of_heads(recipe: Recipe, tasks: Sequence[str]) -> dict[str, Any]:
    """Name the heads of some tasks, and the necks that these read through."""
    heads = recipe.heads
    own = {task: settings(heads.heads[task]) for task in tasks if task in heads.heads}
    used = {head.neck for head in map(heads.of, tasks)}
    necks = {name: settings(neck) for name, neck in heads.necks.items() if name in used}
    found = settings(heads.head)
    return {**found, "heads": own, "necks": necks} if own or necks else found


def of_training(
    recipe: Recipe,
    *,
    fingerprint: str,
    tasks: tuple[Any, ...],
    train: TrainConfig,
    backbone: BackboneConfig,
    split: str | None,
    seed: int | None,
    measured: str | None,
    start: str | None,
    copies: CopyConfig | None = None,
    until: int | None = None,
) -> str:
    """Return the identity of one training, which names its folder.

    Args:
        recipe: for its data, head and `split.init`.
        fingerprint: of the data's files (`Schema.fingerprint`).
        tasks: those that are learned, in order.
        train: how.
        backbone: of what.
        split: digest of the split; None for none.
        seed: of initialisation and batches; None leaves it open.
        measured: format of the conflict scores it writes; None if it measures none.
        start: identity of the training whose weights it starts from, or with which it goes on.
        copies: what the copies of a split are; None for whole ones.
        until: the epoch after which it stops; None for the last of `train`.
    """
    return digest(
        {
            "data": of_data(recipe.data, fingerprint),
            "backbone": of_backbone(backbone),
            "head": of_heads(recipe, tuple(spec["name"] for spec in tasks)),
            "train": settings(train),
            "tasks": tasks,
            "split": split,
            "init": recipe.split.init if split is not None else None,
            "seed": seed,
            "measured": measured,
            "start": start,
            **({} if copies is None else {"copies": copies.model_dump()}),
            **({} if until is None else {"until": until}),
        }
    )


LENGTH = ("trials", "terminator", "margin")
"""Keys of `[search]` that say how long it goes on."""


def of_study(recipe: Recipe, training: str, scores: str) -> dict[str, str]:
    """Return what all trials of a study share: `recipe` and `scores`.

    Args:
        recipe: the recipe; what it compares in the end does not count.
        training: identity of the recipe's own training (see `of_training`).
        scores: digest of the scores that splits are chosen by.
    """
    varied = settings(recipe.search, without={"heartbeat", "retries", *LENGTH})
    parts = {
        "training": training,
        "search": varied,
        "split": settings(recipe.split),
        "window": recipe.probe.window,
    }
    if recipe.compare.delta_m != "per-task":  # what trials are judged by
        parts["delta_m"] = recipe.compare.delta_m
    return {"recipe": digest(parts), "scores": scores}


def of_run(recipe: Recipe) -> dict[str, str]:
    """Return the identity of a run folder, one digest a section of the recipe.

    A search may be given more trials later, and so may a probe get more seeds, and a comparison
    more of anything: what is trained already is taken as it is.
    """
    sections: Mapping[str, Any] = {
        "seed": recipe.seed,
        "data": settings(recipe.data, without=WHEREABOUTS),
        "backbone": of_backbone(recipe.backbone),
        "head": settings(recipe.head),
        "tasks": {name: settings(task) for name, task in recipe.tasks.items()},
        "necks": {name: settings(neck) for name, neck in recipe.necks.items()},
        "train": settings(recipe.train),
        "probe": settings(recipe.probe, without={"seeds"}),
        "split": settings(recipe.split),
        "search": settings(recipe.search, without={*LENGTH}),
    }
    return {name: digest(value) for name, value in sections.items()}
