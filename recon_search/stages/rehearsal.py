"""A rehearsal: two steps of each of a recipe's trainings, before anything runs."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from recon_search.chance import forked
from recon_search.data.source import Inputs, PartName, Step
from recon_search.data.view import FeedView
from recon_search.errors import RecipeError, ReconSearchError, in_one_line
from recon_search.graph.split import Split
from recon_search.model.facts import Facts
from recon_search.model.source import untrained
from recon_search.recipe import Recipe
from recon_search.runs.fitting import fit_training
from recon_search.runs.run import Run
from recon_search.runs.training import Training
from recon_search.search.space import check_space
from recon_search.stages.controls import control_copies
from recon_search.stages.during import check_parts
from recon_search.stages.probe import check_window, probe_training

IMAGES = 4
"""In a batch of a rehearsal, at most."""

MOST_FLOPS = 2e12
"""Work above which nothing is rehearsed: about half a minute on two cores."""

MOST_PARAMETERS = 2e8
"""Size above which nothing is rehearsed: a gradient a task and a checkpoint are so large each."""


def rehearse(run: Run) -> str:
    """Take two steps of every training that a recipe names, with a checkpoint between them.

    That is the recipe's own data, backbone, heads, tasks, methods, optimiser and precision: unsplit
    as it is probed and with its first layers split, and so at every end of a search's space.
    Batches are of at most `IMAGES`. The backbone begins with random weights: whether a file's fit,
    `check` has seen. Nothing is kept.

    Args:
        run: one that `check` lets pass.

    Returns:
        Why no step was taken, where that would take too long; "" where all were.

    Raises:
        ReconSearchError: what the run would end with.
    """
    names, name = run.schema.names, run.recipe.backbone.name
    check_measured(run)
    facts = run.facts
    trainings = list(_trainings(run, list(facts.analysis.layers)))
    n_images = _affordable(facts, names, len(trainings), apart=run.schema.apart)
    if not n_images:
        return (
            f"Not tried: training steps, which take too long for {name} ({facts.n_parameters:,} "
            f"parameters) on images of shape {run.schema.shape}."
        )
    with forked(), tempfile.TemporaryDirectory() as folder:
        for number, (recipe, training) in enumerate(trainings):
            glimpse = _Glimpse(run.feed, min(n_images, recipe.train.batch_size))
            stage = run.with_recipe(recipe).reading(glimpse, out=Path(folder) / str(number))
            try:
                for n_epochs in (1, 2):
                    _train(training, stage, n_epochs)
            except ReconSearchError:
                raise
            except Exception as error:  # of torch, timm, TorchJD, of a head or data of one's own
                raise RecipeError(
                    f"Two steps of training {name} by {training.train.method} must work, they met "
                    f"{in_one_line(error)}. Change what that names, or pass --debug before the "
                    "command to see where."
                ) from error
    return ""


def check_measured(run: Run) -> None:
    """Refuse a recipe by which no step would be measured where one must be.

    Raises:
        RecipeError: with the number of steps.
    """
    if run.recipe.split.when == "before":
        check_window(run)
    if run.recipe.split.when == "during" or run.recipe.compare.during:
        check_parts(run)


@dataclass(frozen=True)
class _Glimpse(FeedView):
    """A feed of which no more than the first images of each part are seen.

    Attributes:
        size: how many images.
    """

    size: int

    @property
    def inputs(self) -> Inputs:
        """Made ready by a guess: to measure means, everything would have to be read."""
        each = torch.full((self.schema.shape[0],), 0.5, device=self.device)
        return Inputs(each, each)

    def lengths(self, part: PartName) -> tuple[int, ...]:
        """Number of images, of each task if they are apart."""
        return tuple(min(self.size, length) for length in super().lengths(part))

    def n_steps(self, part: PartName, size: int, *, shuffled: bool) -> int:
        """One."""
        return 1

    def steps(
        self,
        part: PartName,
        size: int,
        order: tuple[int, int] | None = None,
        *,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[Step]:
        """Yield the first images of a part."""
        return itertools.islice(self.feed.steps(part, self.size), 1)


class _Enough(Exception):  # noqa: N818 - no error
    """A training has come as far as it was to."""


def _trainings(run: Run, layers: list[str]) -> Iterator[tuple[Recipe, Training]]:
    """Yield every way of training once, each with the recipe that asks for it."""
    names, seen = run.schema.names, set()
    for recipe in (run.recipe, *check_space(run.recipe)):
        split = Split.private(layers[: max(1, recipe.split.k or 0)], names)
        ways = [probe_training(run.with_recipe(recipe), recipe.seed)]
        for method in dict.fromkeys([recipe.train.method, *recipe.compare.methods]):
            config = recipe.train.model_copy(update={"method": method})
            kept = recipe.split.copies
            one = Training(names, split, config, recipe.backbone, recipe.seed, method, copies=kept)
            ways.append(one)
        ways += _controls(recipe, ways[1])
        for training in ways:
            key = (
                training.split is None,
                training.train.model_dump_json(),
                training.copies.model_dump_json(),
            )
            if key not in seen:
                seen.add(key)
                yield recipe, replace(training, backbone=untrained(training.backbone))


def _controls(recipe: Recipe, split: Training) -> Iterator[Training]:
    """Yield the ways of training that only controls have."""
    method = {"method": recipe.compare.methods[0]}
    base = replace(split, train=split.train.model_copy(update=method))
    for control in recipe.compare.controls:
        if control in ("norm-gates", "low-rank"):
            yield replace(base, copies=control_copies(control, recipe))
        elif control == "sparse":
            share = {"update_share": recipe.compare.update_share}
            yield replace(base, split=None, train=base.train.model_copy(update=share))


def _affordable(facts: Facts, tasks: tuple[str, ...], n_trainings: int, *, apart: bool) -> int:
    """How many images a batch may have, `IMAGES` at most; 0 where even two take too long."""
    if facts.n_parameters > MOST_PARAMETERS:
        return 0
    flops = sum(facts.analysis.flops.values())
    # Two steps, each a forward pass, a backward pass a task and one for all; and two to judge.
    # Apart, each task has a forward pass, and the backward passes are of its own images.
    passes = len(tasks) if apart else 1
    work = n_trainings * flops * (2 * (passes + 2 * (len(tasks) + passes)) + 2 * passes)
    return next((n for n in (IMAGES, 2) if n * work <= MOST_FLOPS), 0)


def _train(training: Training, stage: Run, n_epochs: int) -> None:
    """Train, or go on from the checkpoint, until an epoch is over; each has one step."""

    def stop(record: dict[str, Any]) -> None:
        if record["epoch"] == n_epochs:
            raise _Enough

    longer = training.train.model_copy(update={"epochs": max(2, training.train.epochs)})
    with contextlib.suppress(_Enough):
        fit_training(replace(training, train=longer), stage, after_epoch=stop)
