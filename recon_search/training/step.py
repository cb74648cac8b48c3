"""One step: from batches to losses and features by task."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recon_search import parallel
from recon_search.data.source import Feed, Inputs, Step
from recon_search.model.network import MultiTaskModel
from recon_search.recipe import TrainConfig
from recon_search.tasks.task import Task


@dataclass(frozen=True)
class Learner:
    """A model and what it learns.

    Attributes:
        model: on the device of the feed.
        tasks: those of the model, in its order.
        feed: the data.
        config: how it is trained.
    """

    model: MultiTaskModel
    tasks: tuple[Task, ...]
    feed: Feed
    config: TrainConfig

    def losses(self, step: Step) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return losses and features by task.

        A task none of whose labels are in the step has no loss; only those that lack some labels
        are looked at, because looking makes a GPU wait. Of several processes each has its share of
        a task's loss, so that their mean is the mean over all of the step's labels.
        """
        targets = {name: target for batch in step for name, target in batch.targets.items()}
        named = [task for task in self.tasks if task.name in targets]
        shares = _shares(named, targets, self.feed.schema.complete)
        wanted = [task.name for task in named if shares.get(task.name, 1.0) is not None]
        losses = {}
        with autocast(self.feed.device, self.config):
            outputs, features = forward(
                self.model, step, self.feed.inputs, [task.name for task in named], heads=wanted
            )
            for task in named:
                share = shares.get(task.name, 1.0)
                if share is None:
                    continue
                output = outputs[task.name]
                if share == 0:  # others have labels: take part in their exchanges, with zeros
                    losses[task.name] = 0.0 * output.float().sum()
                    continue
                loss = task.loss(output, targets[task.name])
                factor = share * task.weight
                losses[task.name] = loss if factor == 1 else factor * loss
        return losses, features


def forward(
    model: MultiTaskModel,
    step: Step,
    inputs: Inputs,
    tasks: Sequence[str],
    heads: Collection[str] | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Compute outputs and features by task, each task's from the batch that names it.

    Args:
        model: the model.
        step: its batches.
        inputs: how they are made ready.
        tasks: names of those wanted.
        heads: those of them whose outputs are wanted; all if None.
    """
    outputs: dict[str, Tensor] = {}
    features: dict[str, Tensor] = {}
    for batch in step:
        own = tuple(name for name in tasks if name in batch.targets)
        if not own:
            continue
        found = model.backbone(inputs.normalise(batch.inputs), own)
        for name in own:
            features[name] = found[name]
            if heads is None or name in heads:
                outputs[name] = model.heads[name](found[name])
    return outputs, features


def autocast(device: torch.device, config: TrainConfig) -> torch.autocast:
    """What a forward pass runs under: bfloat16 where the recipe says so, or by itself on a GPU."""
    wanted = "bfloat16" if device.type == "cuda" else "float32"
    precision = wanted if config.precision == "auto" else config.precision
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def _shares(
    tasks: Sequence[Task], targets: Mapping[str, Tensor], complete: Collection[str]
) -> dict[str, float | None]:
    """The number of a task's labels here to their mean over the processes; None: nobody has any."""
    partial = sorted((task for task in tasks if task.name not in complete), key=lambda t: t.name)
    if not partial:
        return {}
    here = torch.stack([task.n_labels(targets[task.name]) for task in partial]).double()
    means = parallel.mean([here])[0]
    return {
        task.name: number / mean if mean else None
        for task, number, mean in zip(partial, here.tolist(), means.tolist(), strict=True)
    }
