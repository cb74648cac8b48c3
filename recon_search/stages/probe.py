"""Measure in which layers the tasks' gradients conflict, over as many seeds as it takes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from recon_search.conflict.reliability import measure_reliability
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import RecipeError
from recon_search.recipe import LEAST_SEEDS
from recon_search.runs.pool import n_workers, train_all
from recon_search.runs.run import Run
from recon_search.runs.training import Training
from recon_search.stages.split import choose_layers, reading_of

FILE = "scores.safetensors"

KEEPS_NOTHING = {"ema": None, "ema_warmup": True, "patience": 0, "select": None, "report_epochs": 1}
"""Keys of `[train]` that say which weights are kept: a probe looks at gradients, to the end."""


def probe(run: Run) -> ConflictScores:
    """Run the probe and write `scores.safetensors`, the seeds' scores added up.

    With `probe.confidence` the seeds are added one after the other until the layers that the
    recipe would split are that stable (see `measure_reliability`; one seed cannot tell), or until
    there are `probe.seeds`. How many trainings run at once does not change which seeds are used.
    Scores that the folder already holds are taken as they are, if they are of enough seeds:
    `continue_probe` may have added to them.
    """
    recipe, path = run.recipe, run.out / FILE
    if path.is_file() and _is_enough(run, scores := ConflictScores.load(path)):
        return scores
    check_window(run)
    limit = recipe.probe.seeds
    at_once = limit if recipe.probe.confidence is None else n_workers(run)
    seeds = range(recipe.seed, recipe.seed + limit)
    for scores in itertools.accumulate(_measure_seeds(run, seeds, at_once)):
        if _is_stable(run, scores):
            break
    scores.save(path)
    _tell_stability(run, scores)
    return scores


def continue_probe(run: Run, n_seeds: int = 1) -> ConflictScores:
    """Add `n_seeds` more seeds to the scores in the folder: those after the seeds already there.

    The file is replaced after the last one, so that a call that was killed is repeated as it was.

    Raises:
        ArtefactError: the folder holds no scores.
        RecipeError: they were measured with another recipe.
    """
    path = run.out / FILE
    scores = ConflictScores.load(path)
    if not _is_of(run, scores):
        raise RecipeError(
            f"--continue needs the recipe that the scores were measured with, found those of "
            f"another in {path}. Choose another --out, or probe anew without --continue."
        )
    first = max(scores.metadata["seeds"]) + 1
    for more in _measure_seeds(run, range(first, first + n_seeds), n_seeds):
        scores = scores + more
    scores.save(path)
    _tell_stability(run, scores)
    return scores


def probe_training(run: Run, seed: int) -> Training:
    """The training of one probe seed: the shared network, briefly."""
    recipe = run.recipe
    config = recipe.train.model_copy(
        update={
            "method": recipe.probe.method,
            "epochs": recipe.probe.epochs,
            "measure_every": recipe.probe.every,
            "measure_tasks": recipe.probe.tasks_per_step,
            "measure_sketch": recipe.probe.sketch,
            **KEEPS_NOTHING,
        }
    )
    return Training(run.schema.names, None, config, recipe.backbone, seed, "probe", test=False)


def _measure_seeds(run: Run, seeds: range, at_once: int) -> Iterator[ConflictScores]:
    """Yield the scores of each seed, in order; train `at_once` of them when the next is asked for.

    Trainings that the folder already holds are not run again.
    """
    for first in range(0, len(seeds), at_once):
        trainings = [probe_training(run, seed) for seed in seeds[first : first + at_once]]
        for result in train_all(trainings, run, "probe"):
            yield ConflictScores.load(result.directory / FILE)


def check_window(run: Run) -> None:
    """Refuse a probe whose window would hold no measured step.

    Raises:
        RecipeError: with the number of steps.
    """
    recipe = run.recipe
    n_inputs = run.feed.n_steps("train", recipe.train.batch_size, shuffled=True)
    n_steps = recipe.probe.epochs * -(-n_inputs // recipe.train.accumulate)
    first, last = recipe.probe.window
    measured = [step / n_steps for step in range(0, n_steps, recipe.probe.every)]
    if not any(first <= at < last for at in measured):
        lower = "Lower it, or raise" if recipe.probe.every > 1 else "Raise"
        raise RecipeError(
            f"The probe must measure a step in its window {[first, last]}, `probe.every` = "
            f"{recipe.probe.every} gives none of its {n_steps}. {lower} probe.epochs, or widen "
            "probe.window."
        )


def _is_enough(run: Run, scores: ConflictScores) -> bool:
    """Whether scores are this run's, of as many seeds as it takes."""
    if not _is_of(run, scores):
        return False
    return scores.n_probes >= run.recipe.probe.seeds or _is_stable(run, scores)


def _is_of(run: Run, scores: ConflictScores) -> bool:
    """Whether scores are of this run's probe, from its seed on, whatever is split afterwards."""
    measured = scores.metadata.get("recipe"), scores.metadata.get("seeds", [None])[0]
    seed = run.recipe.seed
    return measured == (probe_training(run, seed).identity(run, with_seed=False), seed)


def _stability(run: Run, scores: ConflictScores) -> tuple[int, float]:
    """How many layers the recipe would split, and which share of them another probe would."""
    recipe = run.recipe
    k = max(1, len(choose_layers(recipe, scores, schema=run.schema)))
    reading = reading_of(recipe)
    return k, measure_reliability(scores, recipe.split.rule, reading, k).stability


def _is_stable(run: Run, scores: ConflictScores) -> bool:
    """Whether scores have the confidence the recipe asks for, which takes two seeds at least."""
    confidence = run.recipe.probe.confidence
    if confidence is None or scores.n_probes < LEAST_SEEDS:
        return False
    return _stability(run, scores)[1] >= confidence


def _tell_stability(run: Run, scores: ConflictScores) -> None:
    """Say how many seeds a probe with a confidence used, or warn that they were too few."""
    confidence = run.recipe.probe.confidence
    if confidence is None:
        return
    k, stability = _stability(run, scores)
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
    run.listener.say(text)
