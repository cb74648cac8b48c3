"""Measure in which layers the tasks' gradients conflict, over as many seeds as it takes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console

from recon_search import artefact
from recon_search.conflict.reliability import measure_reliability
from recon_search.conflict.scores import ConflictScores
from recon_search.data.dataset import MultiTaskData, n_batches
from recon_search.errors import RecipeError
from recon_search.recipe import LEAST_SEEDS, Recipe
from recon_search.runs.pool import n_workers, train_all
from recon_search.runs.training import Training, data_on
from recon_search.stages.split import choose_layers, reading_of


def probe(
    recipe: Recipe, out: Path, device: torch.device, console: Console, workers: int | None = None
) -> ConflictScores:
    """Run the probe and write `scores.safetensors`, the seeds' scores added up.

    With `probe.confidence` the seeds are added one after the other until the layers that the
    recipe would split are that stable (see `measure_reliability`; one seed cannot tell), or until
    there are `probe.seeds`. How many trainings run at once does not change which seeds are used.
    Scores that `out` already holds are taken as they are: `continue_probe` may have added to them.
    """
    path = out / "scores.safetensors"
    if path.is_file() and _is_of(recipe, scores := ConflictScores.load(path)):
        return scores
    _check_window(recipe, data_on(recipe.data, device))
    limit = recipe.probe.seeds
    at_once = limit if recipe.probe.confidence is None else n_workers(workers, device)
    seeds = range(recipe.seed, recipe.seed + limit)
    for scores in itertools.accumulate(
        _measure_seeds(recipe, seeds, at_once, out, device, console, workers)
    ):
        if _is_stable(recipe, scores):
            break
    scores.metadata["recipe"] = _digest(recipe)  # a training found here may be another recipe's
    scores.save(path)
    _tell_stability(recipe, scores, console)
    return scores


def continue_probe(
    recipe: Recipe,
    out: Path,
    device: torch.device,
    console: Console,
    workers: int | None = None,
    n_seeds: int = 1,
) -> ConflictScores:
    """Add `n_seeds` more seeds to the scores in `out`: those after the seeds already there.

    The file is replaced after the last one, so that a call that was killed is repeated as it was.

    Raises:
        ArtefactError: `out` holds no scores.
        RecipeError: they were measured with another recipe.
    """
    path = out / "scores.safetensors"
    scores = ConflictScores.load(path)
    if not _is_of(recipe, scores):
        raise RecipeError(
            f"--continue needs the recipe that the scores were measured with, found those of "
            f"another in {path}. Choose another --out, or probe anew without --continue."
        )
    first = max(scores.metadata["seeds"]) + 1
    seeds = range(first, first + n_seeds)
    for more in _measure_seeds(recipe, seeds, n_seeds, out, device, console, workers):
        scores = scores + more
    scores.save(path)
    _tell_stability(recipe, scores, console)
    return scores


def probe_training(recipe: Recipe, tasks: tuple[str, ...], seed: int) -> Training:
    """The training of one probe seed: the shared network, briefly."""
    config = recipe.train.model_copy(
        update={
            "method": recipe.probe.method,
            "epochs": recipe.probe.epochs,
            "measure_every": recipe.probe.every,
        }
    )
    return Training("probe", tasks, None, config, recipe.backbone, seed, test=False)


def _measure_seeds(
    recipe: Recipe,
    seeds: range,
    at_once: int,
    out: Path,
    device: torch.device,
    console: Console,
    workers: int | None,
) -> Iterator[ConflictScores]:
    """Yield the scores of each seed, in order; train `at_once` of them when the next is asked for.

    Trainings that `out` already holds are not run again.
    """
    tasks = data_on(recipe.data, device).tasks
    for first in range(0, len(seeds), at_once):
        trainings = [probe_training(recipe, tasks, seed) for seed in seeds[first : first + at_once]]
        for result in train_all(
            trainings, recipe, out, device, title="probe", console=console, workers=workers
        ):
            yield ConflictScores.load(Path(result["directory"]) / "scores.safetensors")


def _check_window(recipe: Recipe, data: MultiTaskData) -> None:
    """Refuse a probe whose window would hold no measured step.

    Raises:
        RecipeError: with the number of steps.
    """
    n_inputs = n_batches(data.train, recipe.train.batch_size, shuffled=True)
    n_steps = recipe.probe.epochs * -(-n_inputs // recipe.train.accumulate)
    first, last = recipe.probe.window
    measured = [step / n_steps for step in range(0, n_steps, recipe.probe.every)]
    if not any(first <= at < last for at in measured):
        raise RecipeError(
            f"The probe must measure a step in its window {[first, last]}, `probe.every` = "
            f"{recipe.probe.every} gives none of its {n_steps}. Lower it, or raise probe.epochs."
        )


def _is_of(recipe: Recipe, scores: ConflictScores) -> bool:
    """Whether scores were measured with this recipe, from its seed on."""
    measured = scores.metadata.get("recipe"), scores.metadata.get("seeds", [None])[0]
    return measured == (_digest(recipe), recipe.seed)


def _digest(recipe: Recipe) -> str:
    return artefact.digest(recipe.model_dump(exclude={"seed", "compare", "search"}))


def _stability(recipe: Recipe, scores: ConflictScores) -> tuple[int, float]:
    """How many layers the recipe would split, and which share of them another probe would."""
    k = max(1, len(choose_layers(recipe, scores)))
    reading = reading_of(recipe)
    return k, measure_reliability(scores, recipe.split.rule, reading, k).stability


def _is_stable(recipe: Recipe, scores: ConflictScores) -> bool:
    """Whether scores have the confidence the recipe asks for, which takes two seeds at least."""
    confidence = recipe.probe.confidence
    if confidence is None or scores.n_probes < LEAST_SEEDS:
        return False
    return _stability(recipe, scores)[1] >= confidence


def _tell_stability(recipe: Recipe, scores: ConflictScores, console: Console) -> None:
    """Say how many seeds a probe with a confidence used, or warn that they were too few."""
    confidence = recipe.probe.confidence
    if confidence is None:
        return
    k, stability = _stability(recipe, scores)
    found = f"after {scores.n_probes} seeds another probe would share {stability:.0%} of the top"
    found = f"{found} {k}, asked for {confidence:.0%}."
    if stability >= confidence:
        text = f"Stable: {found}"
    elif math.isnan(stability):
        text = f"Warning: after {scores.n_probes} seeds no layer differs from another."
    else:
        text = (
            f"Warning: the ranking never was stable: {found} Probe longer, or add seeds with "
            "`recon-search probe RECIPE --continue --seeds N`; a search takes them by --scores."
        )
    console.print(text, highlight=False, soft_wrap=True)
