"""`[train]` and `[probe]`: how networks are trained, and conflicts measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from recon_search.recipe.section import LARGEST, MOST_SEEDS, Count, Rate, Section, Whole

LEAST_SEEDS = 2
"""Probes that show how far seeds differ."""

LEAST_SKETCH = 16
"""Numbers of a sketched gradient, below which an inner product is all noise."""


class TrainConfig(Section):
    """How networks are trained: the same for baselines, joint and split networks."""

    method: str = "joint"
    options: dict[str, Any] = {}  # of that method; `recon-search ls methods` lists them
    epochs: Count
    batch_size: Count
    accumulate: Count = 1  # batches whose gradients make one update
    optimizer: str = "sgd"
    lr: float = Field(gt=0)  # of one that is too high a rehearsal tells
    layer_decay: float = Field(default=1.0, gt=0, le=1)  # of lr, per layer from the heads down
    head_lr_scale: Rate = 1.0  # heads and necks learn so many times as fast
    weights: dict[str, Rate] = {}  # losses by task are multiplied by these, beside `tasks.*.weight`
    update_share: float = Field(
        default=1.0, gt=0, le=1
    )  # of backbone weights; others stay as drawn
    freeze: list[str] = []  # patterns of the backbone's parameters and modules, as "layer1.*"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, le=LARGEST)
    scheduler: Literal["cosine", "multistep", "step", "constant"] = "cosine"
    milestones: list[Whole] = []
    decay_rate: Rate = 0.1
    warmup_epochs: Whole = 0
    min_lr: float = Field(default=0.0, ge=0)  # where cosine ends
    clip_grad: float | None = Field(default=None, gt=0, le=1e30)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # bfloat16 on a GPU
    grad_checkpointing: bool = False  # compute activations twice, to keep fewer
    ema: float | None = Field(default=None, gt=0, lt=1)  # decay of an average of the weights
    ema_warmup: bool = True  # the average begins short, or else with `ema` from the first step
    patience: Whole = 0  # epochs without a better one before it ends; 0: never
    select: Literal["last", "best"] | None = None  # the epoch kept; None: best with patience
    report_epochs: Count = 1  # metrics are means over so many last epochs
    non_finite: Literal["stop", "skip"] = "stop"  # at a loss or gradient that is not: or leave out
    measure_every: Whole = 0  # conflicts are measured every n-th step; 0: never
    measure_tasks: int = Field(default=0, ge=0)  # of many, drawn for each such step; 0: all
    measure_sketch: int = Field(default=0, ge=0)  # numbers kept of a gradient, a layer; 0: all
    low_memory: bool = False  # measure without keeping gradients; methods on gradients keep them

    @property
    def keeps_best(self) -> bool:
        """Whether the best epoch is kept, and not the last."""
        return self.select == "best" or (self.select is None and self.patience > 0)

    def broken_rules(self) -> Iterator[str]:
        """Low memory keeps no gradients; a pair takes two tasks; `lr` and epochs bound others."""
        if self.measure_tasks == 1:
            yield "`train.measure_tasks` must be 0 (all) or at least 2, got 1: one has no pair."
        if 0 < self.measure_sketch < LEAST_SKETCH:
            yield _too_small("train.measure_sketch", self.measure_sketch)
        if self.low_memory and self.accumulate > 1:
            yield (
                f"`train.low_memory` needs `train.accumulate` 1, got {self.accumulate}: the "
                "gradients of several batches must be kept. Drop one."
            )
        if self.low_memory and self.precision == "float16":
            yield (
                '`train.low_memory` and `train.precision` "float16" exclude each other: gradients '
                'that are not kept cannot be scaled back. Drop one, or take "bfloat16".'
            )
        if self.low_memory and self.update_share < 1:
            yield (
                f"`train.low_memory` needs `train.update_share` 1, got {self.update_share:g}: it "
                "would measure conflicts of weights that are not trained. Drop one."
            )
        if self.low_memory and self.grad_checkpointing:
            yield (
                "`train.low_memory` and `train.grad_checkpointing` exclude each other: activations "
                "would be computed anew for every parameter. Drop one."
            )
        if self.non_finite == "skip" and self.precision == "float16":
            yield (
                '`train.non_finite` "skip" is for full precision, `train.precision` "float16" '
                "leaves out such steps by itself. Drop one."
            )
        if self.min_lr >= self.lr:
            yield (
                f"`train.min_lr` must be below `train.lr`, got {self.min_lr:g} and {self.lr:g}. "
                "Lower it."
            )
        if self.min_lr and self.scheduler != "cosine":
            yield (
                f'`train.min_lr` needs `train.scheduler` "cosine", got "{self.scheduler}": no '
                "other ends at a learning rate. Drop one."
            )
        if self.report_epochs > 1 and (self.keeps_best or self.patience):
            yield (
                f"`train.report_epochs` above 1 needs the last epochs, got {self.report_epochs} "
                'with `train.select` "best" or `train.patience`. Drop one.'
            )
        if self.report_epochs > self.epochs:
            yield (
                f"`train.report_epochs` must be at most `train.epochs`, got {self.report_epochs} "
                f"and {self.epochs}. Lower it."
            )
        if not self.ema_warmup and self.ema is None:
            yield "`train.ema_warmup` needs `train.ema`, which is not set. Set it, or drop both."


class ProbeConfig(Section):
    """How conflicts are measured before splitting."""

    epochs: Count
    every: Count = 16  # per-task gradients every n-th step, plain joint steps between
    tasks_per_step: int = Field(default=0, ge=0)  # measured at once, of many; 0: all
    sketch: int = Field(default=0, ge=0)  # numbers kept a layer and task; 0: whole gradients
    method: str = "joint"
    seeds: int = Field(default=1, gt=0, le=MOST_SEEDS)  # with `confidence`: at most so many
    confidence: float | None = Field(default=None, gt=0, le=1)  # stability at which to stop
    window: tuple[float, float] = (0.6, 1.0)  # the part of the probe that rules read

    def broken_rules(self) -> Iterator[str]:
        """One seed has no confidence, and one task no pair."""
        if self.tasks_per_step == 1:
            yield "`probe.tasks_per_step` must be 0 (all) or at least 2, got 1: one has no pair."
        if 0 < self.sketch < LEAST_SKETCH:
            yield _too_small("probe.sketch", self.sketch)
        if self.confidence is not None and self.seeds < LEAST_SEEDS:
            yield (
                f"`probe.confidence` needs `probe.seeds` of {LEAST_SEEDS} at least, got "
                f"{self.seeds}: one seed cannot show how far seeds differ. Raise it."
            )


def _too_small(key: str, found: int) -> str:
    return (
        f"`{key}` must be 0 (whole gradients) or at least {LEAST_SKETCH}, got {found}: the error "
        "of a cosine is about 1 / sqrt of it. 1024 is a good start."
    )
