"""`[search]`: what Optuna searches for, and how much it may spend."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from recon_search.recipe.section import Count, Section, Whole

LEAST_PAIRED = 3
"""Seeds of a trial below which a test that pairs them by seed can save none."""

Value = bool | int | float | str
"""What a searched key may be set to."""


class Range(Section):
    """A range of a searched key, both ends included; of integers if both ends are."""

    low: int | float
    """Least value."""

    high: int | float
    """Largest value."""

    step: int | float | None = Field(default=None, gt=0)
    """Between values; any in between if not given."""

    log: bool = False
    """Draw evenly on a logarithmic scale."""

    @property
    def is_integer(self) -> bool:
        """Whether integers are drawn."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @model_validator(mode="after")
    def _check_ends(self) -> Range:
        if self.low > self.high:
            raise ValueError(f"low must not be above high, got {self.low} and {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs low > 0 and no step")
        if self.is_integer and isinstance(self.step, float):
            raise ValueError(f"a range of integers needs an integer step, got {self.step}")
        return self

    @property
    def last(self) -> int | float:
        """The largest value that the steps from `low` reach."""
        if self.step is None:
            return self.high
        return self.low + math.floor((self.high - self.low) / self.step + 1e-9) * self.step


class SearchConfig(Section):
    """What Optuna searches for, and how much it may spend."""

    trials: Count = 30
    """In all, for the study; those whose split was trained before do not count."""

    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of what Optuna draws."""

    objective: Literal["delta_m", "loss", "delta_m-parameters", "delta_m-flops"] = "delta_m"
    """Validation delta_m, or the gain in loss; or a front of delta_m against a cost."""

    seeds: Count = 1
    """The most seeds of a trial: the next is trained only if the pruner lets the trial go on."""

    max_params: Annotated[str, Field(pattern=r"^\d+(\.\d+)?x$")] | None = None
    """Limit, as "1.2x" of the unsplit backbone, where `split.max_params` sets none."""

    space: dict[str, Range | Annotated[list[Value], Field(min_length=1)]] = {}
    """Further keys of `[train]` and `[split]` to search: a list of values, or a range."""

    start: Literal["scratch", "shared"] = "scratch"
    """Trials start from scratch, or from the weights of the trained joint network."""

    pruner: Literal["halving", "hyperband", "wilcoxon", "none"] = "halving"
    """Which trials end early: the worse half at half of the epochs, or after 1, 2, 4 ... seeds."""

    terminator: bool = False
    """End where nothing better is likely, as soon as 20 trials are complete."""

    margin: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.5
    """Points of the objective: it ends once a gain of so many is not likely any more."""

    patience: Whole = 0
    """Epochs without improvement before the pruner may prune."""

    heartbeat: Count = 30
    """Seconds; a trial that is silent for four of them is taken up by another worker."""

    retries: Whole = 3
    """Of a trial whose worker died."""

    @property
    def has_front(self) -> bool:
        """Whether there are two objectives, which no pruner can weigh."""
        return self.objective not in ("delta_m", "loss")

    @model_validator(mode="after")
    def _check_terminator(self) -> SearchConfig:
        if self.terminator and self.has_front:
            raise ValueError(
                f"terminator needs an objective that one number says, delta_m or loss, got "
                f"{self.objective}"
            )
        return self

    @model_validator(mode="after")
    def _check_seeds(self) -> SearchConfig:
        several = f"the pruner looks at a trial after each of its {self.seeds} seeds, not after"
        if self.seeds > 1 and self.pruner == "hyperband":
            raise ValueError(f"{several} epochs, as hyperband does: set pruner to halving, or none")
        if self.seeds > 1 and self.patience:
            raise ValueError(
                f"{several} epochs, which patience counts: remove it, or set seeds = 1"
            )
        if self.pruner == "wilcoxon" and self.has_front:
            raise ValueError(
                f"pruner wilcoxon needs an objective that one number says, delta_m or loss, got "
                f"{self.objective}"
            )
        if self.pruner == "wilcoxon" and self.seeds < LEAST_PAIRED:
            raise ValueError(
                f"pruner wilcoxon pairs trials by seed and needs seeds = {LEAST_PAIRED} or more, "
                f"got {self.seeds}: two to tell a difference, and one to save"
            )
        return self
