"""Every task's metrics over a part, a batch at a time."""

from __future__ import annotations

import torch

from recon_search.data.source import Feed, PartName
from recon_search.model.network import MultiTaskModel
from recon_search.recipe import TrainConfig
from recon_search.tasks.task import Metrics
from recon_search.training.step import autocast, forward

LEAST_SIZE = 256
"""Inputs of a batch, if training takes no more."""


@torch.no_grad()
def evaluate(model: MultiTaskModel, feed: Feed, part: PartName, config: TrainConfig) -> Metrics:
    """Compute the metrics of a model's tasks, in eval mode and in the training's precision.

    Tasks that the feed does not have are left out; those with data of their own are judged on them.
    """
    model.eval()
    names = tuple(name for name in model.tasks if name in feed.schema.names)
    meters = {task.name: task.meter() for task in feed.schema.select(names)}
    for step in feed.select(names).steps(part, max(config.batch_size, LEAST_SIZE)):
        with autocast(feed.device, config):
            outputs, _ = forward(model, step, feed.inputs, names)
        for batch in step:
            for name in outputs.keys() & batch.targets.keys():
                meters[name].update(outputs[name].float(), batch.targets[name])
    return {name: meter.compute() for name, meter in meters.items()}
