"""A finished model on the data of a recipe, which need not be those that it was trained on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from torch import Tensor

from recon_search.data.source import Inputs, PartName, Schema, Step
from recon_search.data.view import FeedView
from recon_search.errors import DataError, RecipeError, nearest
from recon_search.model.files import load
from recon_search.model.inputs import inputs_of
from recon_search.runs.run import Run
from recon_search.tasks.registry import create_task
from recon_search.tasks.task import Metrics, Task, class_names, units
from recon_search.training.evaluation import evaluate

Tell = Callable[[int, int], None]
"""Hears of so many images done, and how many there are."""


@dataclass(frozen=True)
class Evaluation:
    """What a model was found to be worth.

    Attributes:
        part: of the data.
        n_samples: in it.
        metrics: by the recipe's task and metric, the loss too.
        units: of the metrics.
    """

    part: PartName
    n_samples: int
    metrics: Metrics
    units: dict[str, dict[str, str]]


def evaluate_model(
    directory: Path,
    run: Run,
    part: PartName = "test",
    names: Mapping[str, str] | None = None,
    tell: Tell | None = None,
) -> Evaluation:
    """Compute the metrics of every task of a recipe by a model that has learned it.

    Images are made ready as the model knows them, outputs are read as it means them; the recipe
    says what is measured, in what batches and what precision.

    Args:
        directory: of the model.
        run: the recipe, and the device; nothing is written.
        part: of its data.
        names: the model's names of tasks that the recipe calls otherwise.
        tell: hears of progress.

    Raises:
        ArtefactError: there is no such model, or it does not say how images are made ready.
        RecipeError: the model lacks a task of the recipe, or has another one of that name.
        DataError: the images are of another shape.
    """
    model = load(directory)
    inputs = inputs_of(model.config, run.device)
    shape = tuple(model.config["input"]["shape"])
    schema = run.schema
    if schema.shape != shape:
        raise DataError(
            f"Images must have the shape that the model was trained on, {shape}, those of the "
            f"recipe have {schema.shape}. Change their size or channels in [data], or name the "
            "recipe.json of the run, which has what --set has changed."
        )
    known = {spec["name"]: create_task(spec) for spec in model.config["tasks"]}
    matched = _match(schema.tasks, known, names or {})
    theirs = {task.name: _meant(task, known[name]) for task, name in matched}
    back = {name: task.name for task, name in matched}
    seen = _View(
        run.feed,
        replace(schema, tasks=tuple(theirs.values())),
        inputs,
        {task.name: name for task, name in matched},
        tell,
    )
    with contextlib.closing(run.feed):
        metrics = evaluate(model.to(run.device), seen, part, run.recipe.train)
    return Evaluation(
        part,
        sum(run.feed.lengths(part)),
        {task.name: metrics[name] for task, name in matched},
        {back[name]: own for name, own in units(theirs.values()).items()},
    )


def _match(
    tasks: tuple[Task, ...], known: Mapping[str, Task], names: Mapping[str, str]
) -> list[tuple[Task, str]]:
    """Pair the recipe's tasks with the names that the model has for them.

    Raises:
        RecipeError: a name is unknown, or what is called so is another task.
    """
    here = [task.name for task in tasks]
    for new in names:
        if new not in here:
            raise RecipeError(
                f"--map must be RECIPE'S=MODEL'S, the recipe has no task '{new}' but "
                f"{', '.join(here)}.{nearest(new, here)}"
            )
    matched = [(task, names.get(task.name, task.name)) for task in tasks]
    for task, name in matched:
        if name not in known:
            raise RecipeError(
                f"The model must have every task of the recipe, it has no '{name}' but "
                f"{', '.join(known)}.{nearest(name, known)} Pass --map '{task.name}'=NAME."
            )
        if sum(name == other for _, other in matched) > 1:
            raise RecipeError(
                f"Each task of the model must be one of the recipe's, '{name}' is two. Pass "
                "another --map."
            )
        _check_same(task, known[name])
    return matched


def _check_same(task: Task, theirs: Task) -> None:
    """Refuse a task of the model that is not what the recipe means.

    Raises:
        RecipeError: what differs.
    """
    facts = [
        ("kind", task.spec()["kind"], theirs.spec()["kind"]),
        ("number of outputs", task.n_outputs, theirs.n_outputs),
    ]
    own, other_unit = (getattr(each, "unit", "") for each in (task, theirs))
    if own and other_unit:  # one may not be said
        facts.append(("unit", own, other_unit))
    for what, ours, other in facts:
        if ours != other:
            raise RecipeError(
                f"Task '{task.name}' must have the {what} that the model was trained for, {other}, "
                f"the recipe's data has {ours}. Change the recipe, or take another model."
            )
    pairs = zip(class_names(task), class_names(theirs), strict=False)  # one's own may have none
    for number, (ours, other) in enumerate(pairs):
        if ours != other:
            raise RecipeError(
                f"Task '{task.name}' must have the classes that the model was trained for, in that "
                f"order: class {number} is '{other}', the recipe's data has '{ours}'. Name them: "
                f"--set tasks.{task.name}.classes=[...]."
            )


def _meant(task: Task, theirs: Task) -> Task:
    """The task as the model means it, measured as the recipe says."""
    spec = dict(theirs.spec())
    spec.pop("metrics", None)
    own = task.spec()
    return create_task({**spec, "metrics": own["metrics"]} if "metrics" in own else spec)


@dataclass(frozen=True)
class _View(FeedView):
    """A feed as a model sees it: with its names of tasks, and made ready as it is used to.

    Attributes:
        seen: the schema, with the model's tasks.
        prepared: how the model's images are made ready.
        names: the model's names of the feed's tasks.
        tell: hears of progress.
    """

    seen: Schema
    prepared: Inputs
    names: Mapping[str, str]
    tell: Tell | None

    @property
    def schema(self) -> Schema:
        """With the model's tasks."""
        return self.seen

    @property
    def inputs(self) -> Inputs:
        """As the model's images are made ready."""
        return self.prepared

    def select(self, tasks: Collection[str]) -> Self:
        """All that it shows: the model's tasks that the recipe has."""
        return self

    def steps(
        self,
        part: PartName,
        size: int,
        order: tuple[int, int] | None = None,
        *,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[Step]:
        """Cut a part into steps (see `Feed.steps`)."""
        done, total = 0, sum(self.lengths(part))
        for step in super().steps(part, size, order, share=share):
            for batch in step:
                self._check(batch.inputs)
            yield tuple(
                replace(batch, targets={self.names[t]: each for t, each in batch.targets.items()})
                for batch in step
            )
            done += sum(len(batch.inputs) for batch in step)
            if self.tell is not None:
                self.tell(done, total)

    def _check(self, inputs: Tensor) -> None:
        """Refuse numbers of another range than the model's.

        Raises:
            DataError: pixels where the model wants floating-point numbers, or the other way round.
        """
        if inputs.is_floating_point() == (self.inputs.scale == 1):
            return
        kinds = {True: "floating-point numbers", False: "pixels from 0 to 255"}
        raise DataError(
            f"Images must be {kinds[self.inputs.scale == 1]} as the model was trained on, those of "
            f"the recipe are {kinds[inputs.is_floating_point()]}. Convert them."
        )
