"""A run: what is to be done, where, on what, and who hears of it."""

from __future__ import annotations

import functools
import uuid
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch

from recon_search.artefact import digest
from recon_search.data.registry import find_source
from recon_search.data.source import Feed, Schema, Source
from recon_search.data.task_data import TaskData
from recon_search.data.transforms import Pretraining
from recon_search.model.facts import Facts, facts_of
from recon_search.model.pretraining import find_pretraining
from recon_search.recipe import Recipe
from recon_search.runs.deadline import Deadline
from recon_search.runs.listener import SILENT, Listener


@dataclass(frozen=True)
class Run:
    """What every stage is given.

    Attributes:
        recipe: what is to be done.
        out: the run folder.
        device: where networks are trained.
        workers: trainings at once; None for one a core on the CPU, and one on a GPU.
        listener: hears how the work goes; workers in other processes have none.
        deadline: ends the work in order (see `OutOfTime`); None lets it take its time.
        data: given from Python; None where the recipe names it.
        token: of the data as they are now. Runs that are made of this one share what was read; one
            that is made anew reads anew, for files may have changed, or the working folder.
    """

    recipe: Recipe
    out: Path
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int | None = None
    listener: Listener = field(default=SILENT, compare=False)
    deadline: Deadline | None = field(default=None, compare=False)
    data: TaskData | None = field(default=None, compare=False)
    token: str = field(default_factory=lambda: uuid.uuid4().hex, compare=False)

    @property
    def schema(self) -> Schema:
        """What is known of the data before it is read."""
        return _source(self._wanted).schema

    @property
    def feed(self) -> Feed:
        """The data on the device, loaded once for all trainings of a process."""
        return _feed(self._wanted, self.device)

    @property
    def facts(self) -> Facts:
        """What is known of the recipe's backbone, on these images and for what these tasks read."""
        recipe, schema = self.recipe, self.schema
        return facts_of(recipe.backbone, schema.shape, recipe.train.freeze, tasks=schema.tasks)

    def with_recipe(self, recipe: Recipe) -> Run:
        """Return the same run with another recipe."""
        return replace(self, recipe=recipe)

    def silent(self) -> Run:
        """Return the same run without its listener, for another process."""
        return replace(self, listener=SILENT)

    def reading(self, feed: Feed, *, out: Path) -> Run:
        """Return the same run in another folder, which reads from a feed given."""
        own = {each.name: getattr(self, each.name) for each in fields(Run)}
        return _Reading(**{**own, "out": out}, shown=feed)

    @property
    def _wanted(self) -> _Wanted:
        recipe = self.recipe
        pretraining = find_pretraining(recipe.backbone, recipe.data.statistics)
        tasks = {name: task.model_dump(mode="json") for name, task in recipe.tasks.items()}
        parts = [self.token, recipe.data.model_dump(mode="json"), tasks, repr(pretraining)]
        return _Wanted(digest(parts), self, pretraining)


@dataclass(frozen=True)
class _Reading(Run):
    """A run whose feed is given."""

    shown: Feed | None = field(default=None, compare=False)

    @property
    def feed(self) -> Feed:
        """The one that was given."""
        assert self.shown is not None
        return self.shown


@dataclass(frozen=True)
class _Wanted:
    """The data of a run, known by what determines it: recipes cannot be hashed."""

    key: str
    run: Run = field(compare=False)
    pretraining: Pretraining | None = field(compare=False)


@functools.lru_cache(maxsize=2)
def _source(wanted: _Wanted) -> Source:
    recipe, data = wanted.run.recipe, wanted.run.data
    return find_source(recipe.data, recipe.tasks, given=data, pretraining=wanted.pretraining)


@functools.lru_cache(maxsize=1)
def _feed(wanted: _Wanted, device: torch.device) -> Feed:
    return _source(wanted).open(device, wanted.run.listener.say)
