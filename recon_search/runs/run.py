"""A run: what is to be done, where, on what, and who hears of it."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from recon_search.data.registry import find_source
from recon_search.data.source import Feed, Schema, Source
from recon_search.recipe import DataConfig, Recipe
from recon_search.runs.deadline import Deadline
from recon_search.runs.listener import SILENT, Listener


@dataclass(frozen=True)
class Run:
    """What every stage is given.

    Attributes:
        recipe: what is to be done.
        out: the run folder.
        device: where networks are trained.
        workers: trainings at once; None for one a core on the CPU.
        listener: hears how the work goes; workers in other processes have none.
        deadline: ends the work in order (see `OutOfTime`); None lets it take its time.
    """

    recipe: Recipe
    out: Path
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int | None = None
    listener: Listener = field(default=SILENT, compare=False)
    deadline: Deadline | None = field(default=None, compare=False)

    @property
    def schema(self) -> Schema:
        """What is known of the data without reading a pixel."""
        return _source(self.recipe.data).schema

    @property
    def feed(self) -> Feed:
        """The data on the device, loaded once for all trainings of a process."""
        return _feed(self.recipe.data, self.device)

    def with_recipe(self, recipe: Recipe) -> Run:
        """Return the same run with another recipe."""
        return replace(self, recipe=recipe)

    def silent(self) -> Run:
        """Return the same run without its listener, for another process."""
        return replace(self, listener=SILENT)


@functools.lru_cache(maxsize=4)
def _source(config: DataConfig) -> Source:
    return find_source(config)


@functools.lru_cache(maxsize=1)
def _feed(config: DataConfig, device: torch.device) -> Feed:
    return _source(config).open(device)
