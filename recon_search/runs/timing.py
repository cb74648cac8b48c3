"""What a training will take, from a few steps of it: the real network, data, method and device."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from recon_search.chance import forked
from recon_search.data.source import PartName, Step
from recon_search.data.view import FeedView
from recon_search.model.network import MultiTaskModel
from recon_search.recipe.training import TrainConfig
from recon_search.runs.fitting import fit_training
from recon_search.runs.run import Run
from recon_search.runs.training import Training
from recon_search.training.checkpoint import CHECKPOINT, save_checkpoint
from recon_search.training.evaluation import batch_size, evaluate

NOWHERE = Path("nowhere")
"""A run folder that holds no checkpoint; none is written, for no epoch ends."""

STEPS = 10
"""Steps that are timed, beside the first, which also warms up."""

LEAST_STEPS = 3
"""Of which so many are taken whatever they last."""

SECONDS = 10.0
"""Time after which no further step is timed."""


@dataclass(frozen=True)
class Span:
    """Seconds: the middle one of several measured, and their quartiles."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, seconds: list[float]) -> Span:
        """Summarise what was measured; of a single value all three are that."""
        if len(seconds) < 2:
            return cls(*seconds * 3)
        return cls(*statistics.quantiles(seconds, n=4, method="inclusive"))

    def __add__(self, other: Span) -> Span:
        return Span(self.low + other.low, self.middle + other.middle, self.high + other.high)

    def __mul__(self, factor: float) -> Span:
        return Span(factor * self.low, factor * self.middle, factor * self.high)


def time_steps(training: Training, run: Run) -> Span:
    """Time the steps of a training between two of their batches; an update may take several.

    Nothing is written. Random states are left as they were.
    """
    watched = _Watched(run.feed, run.recipe.train.accumulate)
    with forked(), contextlib.suppress(_Enough):
        fit_training(training, run.reading(watched, out=NOWHERE))
    return Span.of(watched.seconds[1:] or watched.seconds)


def time_judging(model: MultiTaskModel, run: Run, part: PartName) -> Span:
    """Time the evaluation of a model on a part, from its first batches."""
    watched = _Watched(run.feed, 1)
    with contextlib.suppress(_Enough):
        evaluate(model, watched, part, run.recipe.train)
    size = batch_size(run.schema, run.recipe.train)
    measured = watched.seconds[1:] or watched.seconds
    return Span.of(measured) * run.feed.select(model.tasks).n_steps(part, size, shuffled=False)


def time_opening(run: Run) -> Span:
    """Time what every training does before its first step: reading what is kept of the images.

    That is 0 where it has been done in this process.
    """
    started = time.perf_counter()
    with forked():
        assert run.feed.inputs is not None
        next(run.feed.steps("train", run.recipe.train.batch_size, (run.recipe.seed, 0)))
    seconds = time.perf_counter() - started
    return Span(seconds, seconds, seconds)


def time_saving(model: MultiTaskModel, config: TrainConfig) -> Span:
    """Time a checkpoint after an epoch: the weights, and what optimiser and average keep of them.

    It is written beside other temporary files, and removed.
    """
    state = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    n_sets = (2 if config.optimizer.endswith("sgd") else 3) + bool(config.ema) + config.keeps_best
    sets = {str(number): state for number in range(n_sets)}
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        save_checkpoint(Path(folder) / CHECKPOINT, sets)
        seconds = time.perf_counter() - started
    return Span(seconds, seconds, seconds)


class _Enough(Exception):  # noqa: N818 - no error
    """Enough was measured."""


@dataclass(frozen=True)
class _Watched(FeedView):
    """A feed that ends the work once enough of its steps were timed.

    Attributes:
        accumulate: batches that make a step.
        seconds: that each batch took, from when it was asked for until the next was.
    """

    accumulate: int
    seconds: list[float] = field(default_factory=list)

    def n_steps(self, part: PartName, size: int, *, shuffled: bool) -> int:
        """So many that enough are timed before an epoch ends."""
        return super().n_steps(part, size, shuffled=shuffled) + (STEPS + 2) * self.accumulate

    def steps(
        self,
        part: PartName,
        size: int,
        order: tuple[int, int] | None = None,
        *,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[Step]:
        """Yield steps of a part over and over, and time them."""
        started = last = time.perf_counter()
        group, number = 0.0, 0
        while True:
            for step in super().steps(part, size, order, share=share):
                yield step
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                now = time.perf_counter()
                group, last, number = group + now - last, now, number + 1
                if number % self.accumulate == 0:
                    self.seconds.append(group)
                    group = 0.0
                n = len(self.seconds)
                if n > STEPS or (n > LEAST_STEPS and now - started > SECONDS):
                    raise _Enough
            if order is None:  # a part that is judged has an end
                return

    def close(self) -> None:
        """End nothing."""
