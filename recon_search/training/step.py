"""One update: from batches to losses, to gradients, to other weights."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from recon_search import parallel
from recon_search.artefact import digest
from recon_search.conflict.scores import ConflictScores
from recon_search.conflict.sketch import Sketch
from recon_search.data.source import Feed, Inputs, Step
from recon_search.errors import TrainingError
from recon_search.methods.protocol import Surgeon
from recon_search.model.network import MultiTaskModel
from recon_search.recipe import TrainConfig
from recon_search.tasks.task import Task
from recon_search.training.averaging import Average
from recon_search.training.scaler import Scaler
from recon_search.training.sparse import SparseUpdates
from recon_search.training.spoiled import Spoiled, faulty_gradient


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
                factor = share * task.weight * self.config.weights.get(task.name, 1.0)
                losses[task.name] = loss if factor == 1 else factor * loss
        return losses, features


@dataclass
class Stepper:
    """Takes steps of a training, each of one batch or of several whose gradients add up.

    Attributes:
        learner: the model and its data.
        surgeon: turns losses into gradients.
        optimizer: of the model, and of what the surgeon learns.
        scheduler: of the learning rate, from timm; None for none.
        scores: take the Gramians of measured steps; None measures nothing.
        n_steps: of the whole training.
        seed: of what is drawn here.
        scaler: of the losses; None scales nothing.
        average: of the weights; None keeps none.
        sketch: of measured gradients, drawn anew for each step; None where these are kept.
        spoiled: leaves out steps that are not finite; None stops there.
        sparse: keeps a share of the weights as they are; None keeps none.
        n_present: by task, the batches in which it had a loss.
    """

    learner: Learner
    surgeon: Surgeon
    optimizer: torch.optim.Optimizer
    scheduler: Any
    scores: ConflictScores | None
    n_steps: int
    seed: int
    scaler: Scaler | None = None
    average: Average | None = None
    sketch: Sketch | None = None
    spoiled: Spoiled | None = None
    sparse: SparseUpdates | None = None
    n_present: Counter[str] = field(default_factory=Counter)

    def begin(self, number: int) -> None:
        """Begin the step of this number, counted from 0 over the whole training."""
        if self.scheduler is not None:
            self.scheduler.step_update(number)
        self.optimizer.zero_grad(set_to_none=True)
        if self.scaler is not None:
            self.scaler.begin(self.surgeon)
        if self.sketch is not None:
            self.sketch.step = number
        if self.spoiled is not None:
            self.spoiled.begin()
        self._number = number
        self._measured = self._choose()
        self._present: set[str] = set()

    def add(self, batches: Step, share: float) -> Tensor:
        """Differentiate the losses of one of the step's batches.

        Args:
            batches: one input of every task, or one of all.
            share: the weight of these batches in the step.

        Returns:
            The losses (T,), detached; 0 where a task had none.
        """
        self._forward = functools.partial(self.learner.losses, batches)
        losses, features = self._forward()
        self.n_present.update(losses.keys())
        self._present |= losses.keys()
        absent = torch.zeros((), device=self.learner.feed.device)
        tasks = self.learner.model.tasks
        found = torch.stack([losses.get(task, absent).detach() for task in tasks])
        if self.spoiled is not None:
            self.spoiled.look_at_losses(losses)
            if self.spoiled.reason:
                return found
        self.surgeon.accumulate(losses, features, share=share, measure=self._measured)
        return found

    def finish(self) -> None:
        """Combine the gradients, count their conflicts, and move the weights.

        In float16 a step is skipped whose gradients overflow; with `train.non_finite = "skip"` one
        in which anything is not finite.

        Raises:
            TrainingError: gradients are not finite, or the method finds no direction.
        """
        gramians = self.surgeon.combine(measure=self._measured)
        if self.spoiled is not None:
            if not self.spoiled.reason:
                self.spoiled.look_at_gradients()
            if self.spoiled.reason:
                self.optimizer.zero_grad(set_to_none=True)
                self.spoiled.leave_out(self._number)
                return
            self.spoiled.go_on()
        elif self.surgeon.fault is not None and self.scaler is None:  # else it may be overflow
            layer = faulty_gradient(self.learner.model)
            raise TrainingError(
                f"{self.surgeon.fault} It was at step {self._number}, first in '{layer}'."
            )
        if self.scores is not None and gramians is not None:
            seen = self._present
            if not isinstance(self._measured, bool):
                seen = seen & set(self._measured)
            self.scores.update(gramians, at=self._number / self.n_steps, present=sorted(seen))
        if self.scaler is not None:
            self.scaler.settle(self.optimizer)
        if self.learner.config.clip_grad is not None:
            parameters = self.learner.model.parameters()
            torch.nn.utils.clip_grad_norm_(parameters, self.learner.config.clip_grad)
        with contextlib.nullcontext() if self.sparse is None else self.sparse.held():
            if self.scaler is None:
                self.optimizer.step()
            else:
                self.scaler.step(self.optimizer)
        self.surgeon.step(self._forward)
        if self.average is not None:
            self.average.update(self.learner.model, self._number + 1)

    def _choose(self) -> bool | tuple[str, ...]:
        """Whether to measure this step, or which tasks of it."""
        config, tasks = self.learner.config, self.learner.model.tasks
        is_measured = self.scores is not None and config.measure_every > 0
        if not is_measured or self._number % config.measure_every:
            return False
        if not 0 < config.measure_tasks < len(tasks):
            return True
        generator = torch.Generator().manual_seed(
            int(digest([self.seed, "tasks", self._number])[:12], 16)
        )
        drawn = torch.randperm(len(tasks), generator=generator)[: config.measure_tasks]
        return tuple(tasks[index] for index in sorted(drawn.tolist()))


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
        images = inputs.normalise(batch.inputs)
        found = model.features(images, own)
        features |= found
        wanted = {name: found[name] for name in own if heads is None or name in heads}
        outputs |= model.read(wanted, images.shape[-2:])
    return outputs, features


def autocast(device: torch.device, config: TrainConfig) -> torch.autocast:
    """What a forward pass runs under: half precision where the recipe says so, or on a GPU."""
    wanted = "bfloat16" if device.type == "cuda" else "float32"
    precision = wanted if config.precision == "auto" else config.precision
    half = torch.float16 if precision == "float16" else torch.bfloat16
    return torch.autocast(device.type, half, enabled=precision != "float32")


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
