"""Measure in which layers the tasks' gradients conflict."""

from __future__ import annotations

import functools
import operator
from pathlib import Path

import torch
from rich.console import Console

from recon_search.conflict.scores import ConflictScores
from recon_search.recipe import Recipe
from recon_search.stages.pool import train_all
from recon_search.stages.train import Training, data_on


def probe_trainings(recipe: Recipe, tasks: tuple[str, ...]) -> list[Training]:
    """The trainings of a probe: the shared network, briefly, once for each probe seed."""
    config = recipe.train.model_copy(
        update={
            "method": recipe.probe.method,
            "epochs": recipe.probe.epochs,
            "measure_every": recipe.probe.every,
        }
    )
    return [
        Training("probe", tasks, None, config, recipe.backbone, recipe.seed + index, test=False)
        for index in range(recipe.probe.seeds)
    ]


def probe(
    recipe: Recipe, out: Path, device: torch.device, console: Console, workers: int | None = None
) -> ConflictScores:
    """Run the probe and write `scores.safetensors`, the seeds' scores added up."""
    trainings = probe_trainings(recipe, data_on(recipe.data, device).tasks)
    results = train_all(
        trainings, recipe, out, device, title="probe", console=console, workers=workers
    )
    scores = functools.reduce(
        operator.add,
        [
            ConflictScores.load(Path(result["directory"]) / "scores.safetensors")
            for result in results
        ],
    )
    scores.save(out / "scores.safetensors")
    return scores
