"""Train one network, unsplit or with a saved split."""

from __future__ import annotations

import functools

from recon_search.graph.split import Split
from recon_search.model.files import copy_model
from recon_search.runs.pool import counted, tell_skipped
from recon_search.runs.result import Result
from recon_search.runs.run import Run
from recon_search.runs.trainer import train_told
from recon_search.runs.training import Training
from recon_search.stages.during import SCORES, first_part, last_part, measure, split_of


def train_one(run: Run, split: Split | None) -> Result:
    """Train the recipe's network, test it once, and copy its model directory to `model`.

    Args:
        run: where, on what.
        split: on whatever data set it was found; None trains the unsplit network, or with
            `split.when = "during"` one that chooses its split itself (see `stages.during`).
    """
    training = _plan(run, split)
    with run.listener.over("train", 1), counted([training.directory(run)], "train"):
        result = train_told(training, run, functools.partial(run.listener.hear, training.name))
        run.listener.finish(training.name, result.seconds)
    tell_skipped(training, result, run)
    copy_model(result.directory, run.out / "model")
    return result


def _plan(run: Run, split: Split | None) -> Training:
    """The training; of one that is split in its midst the first part is trained here."""
    recipe, method = run.recipe, run.recipe.train.method
    if recipe.split.when == "during":
        first = first_part(run, recipe.seed, method)
        scores = measure(run, [first])
        scores.save(run.out / SCORES)
        own = split_of(first, run) if split is None else split
        assert own is not None
        return last_part(first, own, run, f"{method}, split at {recipe.moments_of_split}")
    label = f"{method}, {'unsplit' if split is None else 'split'}"
    tasks, backbone = run.schema.names, recipe.backbone
    copies = recipe.split.copies
    return Training(tasks, split, recipe.train, backbone, recipe.seed, label, copies=copies)
