"""Train one network, unsplit or with a saved split."""

from __future__ import annotations

import functools

from recon_search.graph.split import Split
from recon_search.runs.pool import counted, tell_skipped
from recon_search.runs.result import Result
from recon_search.runs.run import Run
from recon_search.runs.training import Training, copy_model, train_told


def train_one(run: Run, split: Split | None) -> Result:
    """Train the recipe's network, test it once, and copy its model directory to `model`.

    Args:
        run: where, on what.
        split: on whatever data set it was found; None trains the unsplit network.
    """
    recipe = run.recipe
    label = f"{recipe.train.method}, {'unsplit' if split is None else 'split'}"
    tasks, backbone = run.schema.names, recipe.backbone
    training = Training(tasks, split, recipe.train, backbone, recipe.seed, label)
    with run.listener.over("train", 1), counted([training.directory(run)], "train"):
        result = train_told(training, run, functools.partial(run.listener.hear, training.name))
        run.listener.finish(training.name, result.seconds)
    tell_skipped(training, result, run)
    copy_model(result.directory, run.out / "model")
    return result
