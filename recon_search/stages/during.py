"""Split while training: parts that measure conflicts, a split after each, and the rest.

Probe and retraining are one training. The first part is that of plain joint training, with the
steps of `probe.every` measured; the window of `probe.window` is one of what was trained so far.
What follows goes on with its weights, the state of its optimiser and its schedule (see
`training.branching`). With several epochs in `split.at` the layers are split in turn: a part in the
network so far measures which others conflict now that the worst ones do not.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from recon_search.conflict.scores import ConflictScores
from recon_search.errors import RecipeError
from recon_search.graph.split import Split
from recon_search.recipe import Recipe
from recon_search.runs.pool import train_all
from recon_search.runs.run import Run
from recon_search.runs.training import Training
from recon_search.stages.split import choose_further, choose_split, first_layers

SCORES = "scores.safetensors"


def first_part(run: Run, seed: int, method: str) -> Training:
    """The training of the unsplit network up to the first epoch of a split."""
    recipe, epoch = run.recipe, run.recipe.epochs_of_split[0]
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


def last_part(first: Training, split: Split, run: Run, label: str) -> Training:
    """The training that goes on with a first part and ends in the network of `split`.

    With several epochs of a split its layers are split in the order in which they were chosen.
    """
    recipe = run.recipe
    config = recipe.train.model_copy(update={"method": first.train.method})
    before = _parts(first, split, _sizes(len(split.layers), recipe), recipe)[-1]
    return replace(
        first, split=split, train=config, label=label, test=True, start=before, until=None
    )


def split_of(first: Training, run: Run) -> Split | None:
    """Choose as the recipe says, from what a first part and those that follow have measured.

    Returns:
        None where one of them is not done.
    """
    return _follow(first, run)[1]


def measure(run: Run, firsts: Sequence[Training]) -> ConflictScores:
    """Train first parts, and those that follow; return what the first have measured, added up."""
    check_parts(run)
    for place in range(len(run.recipe.epochs_of_split)):
        train_all([_follow(first, run)[0][place] for first in firsts], run, "before the split")
    scores, *others = [ConflictScores.load(first.directory(run) / SCORES) for first in firsts]
    return sum(others, start=scores)


def check_parts(run: Run) -> None:
    """Refuse parts of a training of which one's window would hold no measured step.

    Raises:
        RecipeError: with the number of steps.
    """
    recipe = run.recipe
    n_inputs = run.feed.n_steps("train", recipe.train.batch_size, shuffled=True)
    n_updates = -(-n_inputs // recipe.train.accumulate)
    low, high = recipe.probe.window
    for before, until in itertools.pairwise((0, *recipe.epochs_of_split)):
        n_steps, own = until * n_updates, range(before * n_updates, until * n_updates)
        measured = (step for step in own if step % recipe.probe.every == 0)
        if not any(low <= step / n_steps < high for step in measured):
            raise RecipeError(
                "What is trained before the split must measure a step in `probe.window` "
                f"{[low, high]}, `probe.every` = {recipe.probe.every} gives none of its "
                f"{len(own)}. Lower it, or raise split.at."
            )


def _follow(first: Training, run: Run) -> tuple[list[Training], Split | None]:
    """The parts that measure, up to the first that is not done; and what all of them choose."""
    recipe, parts, split = run.recipe, [first], None
    sizes = _sizes(recipe.split.k or 0, recipe)
    for k in sizes:
        path = parts[-1].directory(run) / SCORES
        if not path.is_file():
            return parts, None
        scores = ConflictScores.load(path)
        if len(sizes) == 1:
            return parts, choose_split(recipe, scores, schema=run.schema)
        split = choose_further(recipe, scores, split, k)
        parts = _parts(first, split, sizes, recipe)[: len(parts) + 1]
    return parts, split


def _parts(first: Training, split: Split, sizes: Sequence[int], recipe: Recipe) -> list[Training]:
    """The parts before the last of a training that ends in the network of `split`."""
    parts = [first]
    for k, until in zip(sizes, recipe.epochs_of_split[1:], strict=False):
        label = f"{first.train.method}, epochs {parts[-1].until} to {until}"
        own = first_layers(split, k)
        parts.append(replace(first, split=own, start=parts[-1], until=until, label=label))
    return parts


def _sizes(k: int, recipe: Recipe) -> list[int]:
    """Layers that are split after each epoch of a split, of `k` in the end."""
    n = len(recipe.epochs_of_split)
    return [-(-k * place // n) for place in range(1, n + 1)]
