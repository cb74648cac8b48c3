"""`[train]` and `[probe]`: how networks are trained, and conflicts measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from recon_search.recipe.section import Section

LEAST_SEEDS = 2
"""Probes that show how far seeds differ."""


class TrainConfig(Section):
    """How networks are trained: the same for baselines, joint and split networks."""

    method: str = "joint"
    options: dict[str, Any] = {}  # of that method; `recon-search ls methods` lists them
    epochs: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    accumulate: int = Field(default=1, gt=0)  # batches whose gradients make one update
    optimizer: str = "sgd"
    lr: float = Field(gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    scheduler: Literal["cosine", "multistep", "step", "constant"] = "cosine"
    milestones: list[int] = []
    decay_rate: float = Field(default=0.1, gt=0)
    warmup_epochs: int = Field(default=0, ge=0)
    clip_grad: float | None = Field(default=None, gt=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of autocast; bfloat16 on a GPU
    measure_every: int = Field(default=0, ge=0)  # conflicts are measured every n-th step; 0: never
    measure_tasks: int = Field(default=0, ge=0)  # of many, drawn for each such step; 0: all
    low_memory: bool = False  # measure without keeping gradients; methods on gradients keep them

    def broken_rules(self) -> Iterator[str]:
        """Low memory keeps no gradients; a pair of tasks takes two."""
        if self.measure_tasks == 1:
            yield "`train.measure_tasks` must be 0 (all) or at least 2, got 1: one has no pair."
        if self.low_memory and self.accumulate > 1:
            yield (
                f"`train.low_memory` needs `train.accumulate` 1, got {self.accumulate}: the "
                "gradients of several batches must be kept. Drop one."
            )


class ProbeConfig(Section):
    """How conflicts are measured before splitting."""

    epochs: int = Field(gt=0)
    every: int = Field(
        default=16, gt=0
    )  # per-task gradients every n-th step, plain joint steps between
    tasks_per_step: int = Field(default=0, ge=0)  # measured at once, of many; 0: all
    method: str = "joint"
    seeds: int = Field(default=1, gt=0)  # with `confidence`: at most so many
    confidence: float | None = Field(default=None, gt=0, le=1)  # stability at which to stop
    window: tuple[float, float] = (0.6, 1.0)  # the part of the probe that rules read

    def broken_rules(self) -> Iterator[str]:
        """One seed has no confidence, and one task no pair."""
        if self.tasks_per_step == 1:
            yield "`probe.tasks_per_step` must be 0 (all) or at least 2, got 1: one has no pair."
        if self.confidence is not None and self.seeds < LEAST_SEEDS:
            yield (
                f"`probe.confidence` needs `probe.seeds` of {LEAST_SEEDS} at least, got "
                f"{self.seeds}: one seed cannot show how far seeds differ. Raise it."
            )
