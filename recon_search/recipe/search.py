"""`[search]`: what Optuna searches for, and how much it may spend."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from recon_search.recipe.section import Count, Section, Whole

Value = bool | int | float | str
"""What a searched key may be set to."""


class Range(Section):
    """A range of a searched key, both ends included; of integers if both ends are."""

    low: int | float
    high: int | float
    step: int | float | None = Field(default=None, gt=0)
    log: bool = False

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

    trials: Count = 30  # in all, for the study; deduplicated ones do not count
    seed: int = Field(default=0, ge=0, lt=2**31)  # of what Optuna draws
    objective: Literal["delta_m", "delta_m-parameters", "delta_m-flops"] = "delta_m"  # or a front
    max_params: Annotated[str, Field(pattern=r"^\d+(\.\d+)?x$")] | None = None  # or split's
    space: dict[str, Range | Annotated[list[Value], Field(min_length=1)]] = {}
    start: Literal["scratch", "shared"] = "scratch"  # of a trial: or the trained joint network
    pruner: Literal["halving", "hyperband", "none"] = "halving"
    terminator: bool = False  # end where nothing better is likely, as soon as 20 are complete
    margin: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.5  # by so many points of delta_m
    patience: Whole = 0  # epochs without improvement before the pruner may prune
    heartbeat: Count = 30  # seconds; a trial silent for four of them is retried
    retries: Whole = 3  # of a trial whose worker died

    @model_validator(mode="after")
    def _check_terminator(self) -> SearchConfig:
        if self.terminator and self.objective != "delta_m":
            raise ValueError(
                f"terminator needs the objective delta_m, which one number says, got "
                f"{self.objective}"
            )
        return self
