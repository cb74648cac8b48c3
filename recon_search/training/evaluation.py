"""Every task's metrics over a part, a batch at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from recon_search.data.source import Batch, Feed, PartName, Schema, Step
from recon_search.memory import is_exhausted
from recon_search.model.network import MultiTaskModel
from recon_search.recipe import TrainConfig
from recon_search.tasks.task import Metrics
from recon_search.training.step import autocast, forward

LEAST_SIZE = 256
"""Inputs of a batch, if training takes no more."""

MOST_PIXELS = 2**22
"""Of all inputs of such a batch, where tasks say something of each pixel: 1,024 of 64 x 64."""


def batch_size(schema: Schema, config: TrainConfig) -> int:
    """Return how many inputs are evaluated at once."""
    least = LEAST_SIZE
    if any(task.reads == "pyramid" for task in schema.tasks):
        least = min(least, MOST_PIXELS // math.prod(schema.shape[1:]))
    return max(config.batch_size, least)


@torch.no_grad()
def evaluate(model: MultiTaskModel, feed: Feed, part: PartName, config: TrainConfig) -> Metrics:
    """Compute the metrics of a model's tasks, in eval mode and in the training's precision.

    Tasks that the feed does not have are left out; those with data of their own are judged on them.
    """
    model.eval()
    names = tuple(name for name in model.tasks if name in feed.schema.names)
    meters = {task.name: task.meter() for task in feed.schema.select(names)}
    for step, outputs in answers(model, feed.select(names), part, config):
        for batch in step:
            for name in outputs.keys() & batch.targets.keys():
                meters[name].update(outputs[name].float(), batch.targets[name])
    return {name: meter.compute() for name, meter in meters.items()}


@torch.no_grad()
def answers(
    model: MultiTaskModel, feed: Feed, part: PartName, config: TrainConfig
) -> Iterator[tuple[Step, dict[str, Tensor]]]:
    """Yield a part in steps, with a model's outputs of those of its tasks that the feed has.

    A step that memory is too short for comes in halves. In eval mode no image has to do with
    another, so that this changes no result.
    """
    names = tuple(name for name in model.tasks if name in feed.schema.names)
    for step in feed.steps(part, batch_size(feed.schema, config)):
        yield from _answers(model, step, feed, names, config)


def _answers(
    model: MultiTaskModel, step: Step, feed: Feed, names: Sequence[str], config: TrainConfig
) -> Iterator[tuple[Step, dict[str, Tensor]]]:
    try:
        with autocast(feed.device, config):
            outputs, _ = forward(model, step, feed.inputs, names)
    except (RuntimeError, MemoryError) as error:
        if not is_exhausted(error) or all(len(batch.inputs) < 2 for batch in step):
            raise
    else:
        yield step, outputs
        return
    for half in _halves(step):  # out here, where the error holds no memory any more
        yield from _answers(model, half, feed, names, config)


def _halves(step: Step) -> Iterator[Step]:
    """Yield the first halves of a step's batches, then the second ones."""
    for is_second in (False, True):
        cuts = []
        for batch in step:
            middle = -(-len(batch.inputs) // 2)
            cut = slice(middle, None) if is_second else slice(middle)
            targets = {name: target[cut] for name, target in batch.targets.items()}
            cuts.append(Batch(batch.inputs[cut], targets))
        yield tuple(batch for batch in cuts if len(batch.inputs))
