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
    """How the tasks' gradients are combined; `recon-search ls methods` lists them."""

    options: dict[str, Any] = {}
    """Of that method; `recon-search ls methods` lists them."""

    epochs: Count
    """Passes over the training part."""

    batch_size: Count
    """Samples of a batch; under `torchrun` of all processes together."""

    accumulate: Count = 1
    """Batches whose gradients make one update."""

    optimizer: str = "sgd"
    """One of timm's, by its name."""

    lr: float = Field(gt=0)
    """Learning rate; `recon-search validate` tells of one that is much too high."""

    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Factor on the learning rate for each layer from the heads down."""

    head_lr_scale: Rate = 1.0
    """Heads and necks learn so many times as fast."""

    weights: dict[str, Rate] = {}
    """Factors on the losses by task, beside `tasks.*.weight`."""

    update_share: float = Field(default=1.0, gt=0, le=1)
    """Share of the backbone's weights that is updated; the others, at random, stay as drawn."""

    freeze: list[str] = []
    """Parameters and modules of the backbone that stay as they are, as "layer1.*"."""

    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of optimisers that have one."""

    weight_decay: float = Field(default=0.0, ge=0, le=LARGEST)
    """Of all parameters but norms and biases."""

    scheduler: Literal["cosine", "multistep", "step", "constant"] = "cosine"
    """How the learning rate falls; `step` does so at every third of the epochs."""

    milestones: list[Whole] = []
    """Epochs at which `multistep` lowers the learning rate."""

    decay_rate: Rate = 0.1
    """By which `step` and `multistep` multiply the learning rate."""

    warmup_epochs: Whole = 0
    """In which the learning rate rises from a hundredth of `lr`."""

    min_lr: float = Field(default=0.0, ge=0)
    """Where `cosine` ends."""

    clip_grad: float | None = Field(default=None, gt=0, le=1e30)
    """Largest norm of the gradient; longer ones are cut."""

    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of forward passes; auto: bfloat16 on a GPU, else float32."""

    grad_checkpointing: bool = False
    """Compute activations twice, to keep fewer in memory."""

    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of an average of the weights, which is then evaluated and kept."""

    ema_warmup: bool = True
    """Let that decay grow from 0; else it holds from the second update on."""

    patience: Whole = 0
    """Epochs without a better one before a training ends; 0 never ends it."""

    select: Literal["last", "best"] | None = None
    """The epoch that is kept; best, by validation losses, where `patience` is set, else last."""

    report_epochs: Count = 1
    """Metrics are means over so many last epochs."""

    non_finite: Literal["stop", "skip"] = "stop"
    """At a loss or gradient that is not finite: stop, or leave the step out."""

    measure_every: Whole = 0
    """Conflicts are measured at every n-th step; 0 measures none."""

    measure_tasks: int = Field(default=0, ge=0)
    """Of many tasks so many are drawn for each measured step; 0 measures all."""

    measure_sketch: int = Field(default=0, ge=0)
    """Numbers kept of a gradient, for each layer and task; 0 keeps all."""

    low_memory: bool = False
    """Measure without keeping gradients; methods that combine gradients keep them."""

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
    """Passes over the training part."""

    every: Count = 16
    """Tasks' gradients are taken at every n-th step, plain joint steps between."""

    tasks_per_step: int = Field(default=0, ge=0)
    """Of many tasks so many are measured at once, which saves time; 0 measures all."""

    sketch: int = Field(default=0, ge=0)
    """Numbers kept of a gradient, for each layer and task, which saves memory; 0 keeps all."""

    method: str = "joint"
    """By which the probed network is trained."""

    seeds: int = Field(default=1, gt=0, le=MOST_SEEDS)
    """Probes that are added up; with `confidence` so many at most."""

    confidence: float | None = Field(default=None, gt=0, le=1)
    """Stop when so large a share of the layers to split would be found again."""

    window: tuple[float, float] = (0.6, 1.0)
    """Part of the probe that rules read."""

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
