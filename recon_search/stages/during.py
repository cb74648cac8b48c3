"""Split while training: a first part that measures conflicts, a split by them, and the rest.

Probe and retraining are one training. The first part is that of plain joint training, with the
steps of `probe.every` measured; the window of `probe.window` is one of this part. The second goes
on with its weights, the state of its optimiser and its schedule (see `training.branching`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from recon_search.conflict.scores import ConflictScores
from recon_search.errors import RecipeError
from recon_search.graph.split import Split
from recon_search.runs.pool import train_all
from recon_search.runs.run import Run
from recon_search.runs.training import Training
from recon_search.stages.split import choose_split

SCORES = "scores.safetensors"


def first_part(run: Run, seed: int, method: str) -> Training:
    """The training of the unsplit network up to the epoch of the split."""
    recipe, epoch = run.recipe, run.recipe.epoch_of_split
    config = recipe.train.model_copy(
        update={
            "method": method,
            "measure_every": recipe.probe.every,
            "measure_tasks": recipe.probe.tasks_per_step,
            "measure_sketch": recipe.probe.sketch,
        }
    )
    label = f"{method}, up to epoch {epoch}"
    names = run.schema.names
    return Training(names, None, config, recipe.backbone, seed, label, test=False, until=epoch)


def second_part(first: Training, split: Split, run: Run, label: str) -> Training:
    """The training that goes on with the first part, in the split network."""
    recipe = run.recipe
    config = recipe.train.model_copy(update={"method": first.train.method})
    return replace(
        first, split=split, train=config, label=label, test=True, start=first, until=None
    )


def split_of(first: Training, run: Run) -> Split | None:
    """Choose as the recipe says, from what a first part has measured; None where it is not done."""
    path = first.directory(run) / SCORES
    if not path.is_file():
        return None
    return choose_split(run.recipe, ConflictScores.load(path), schema=run.schema)


def measure(run: Run, trainings: Sequence[Training]) -> ConflictScores:
    """Train first parts and return what they have measured, added up."""
    check_first_part(run)
    results = train_all(trainings, run, "before the split")
    first, *others = [ConflictScores.load(result.directory / SCORES) for result in results]
    return sum(others, start=first)


def check_first_part(run: Run) -> None:
    """Refuse a first part whose window would hold no measured step.

    Raises:
        RecipeError: with the number of steps.
    """
    recipe = run.recipe
    n_inputs = run.feed.n_steps("train", recipe.train.batch_size, shuffled=True)
    n_steps = recipe.epoch_of_split * -(-n_inputs // recipe.train.accumulate)
    low, high = recipe.probe.window
    if not any(low <= step / n_steps < high for step in range(0, n_steps, recipe.probe.every)):
        raise RecipeError(
            f"What is trained before the split must measure a step in `probe.window` {[low, high]},"
            f" `probe.every` = {recipe.probe.every} gives none of its {n_steps}. Lower it, or "
            "raise split.at."
        )
