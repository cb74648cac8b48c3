"""`[split]` and `[compare]`: which layers get private copies, and what that is held against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from recon_search.recipe.section import MOST_SEEDS, Count, Section

DEFAULT_K = 3
"""Layers that are split where a recipe says neither how many nor how large."""


class SplitConfig(Section):
    """Which layers get private copies."""

    rule: str = "projection"
    k: int | None = Field(default=None, ge=0)  # without it and the two limits: DEFAULT_K
    max_params: Annotated[str, Field(pattern=r"^\d+(\.\d+)?x$")] | None = None
    max_flops: Annotated[str, Field(pattern=r"^\d+(\.\d+)?x$")] | None = None  # beside the others
    threshold: float = Field(default=0.0, gt=-1, le=0)
    grouping: Literal["private", "colour", "affinity"] = "private"
    max_groups: int | None = Field(default=None, ge=2)  # copies of a layer, at most
    group_share: float = Field(default=0.5, gt=0, le=1)  # conflicting steps that separate two tasks
    init: Literal["copy", "fresh"] = "copy"
    when: Literal["before", "during"] = "before"  # training: after a probe, or in its midst
    at: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] = 0.5  # epoch, or share

    @model_validator(mode="before")
    @classmethod
    def _settle_k(cls, values: Any) -> Any:
        sizes = ("k", "max_params", "max_flops")
        if isinstance(values, dict) and all(values.get(size) is None for size in sizes):
            return {**values, "k": DEFAULT_K}
        return values

    def broken_rules(self) -> Iterator[str]:
        """A number of layers and a budget exclude each other."""
        if self.k is not None and self.max_params is not None:
            yield (
                f"`split.k` and `split.max_params` exclude each other, got {self.k} and "
                f"{self.max_params}. Leave one out."
            )
        if self.max_groups is not None and self.grouping == "private":
            yield (
                f'`split.max_groups` needs `split.grouping` "colour" or "affinity", got '
                f"{self.max_groups} with one copy a task. Set it."
            )
        if self.when == "during" and self.init == "fresh":
            yield (
                '`split.when` "during" needs `split.init` "copy", got "fresh": copies that are '
                "drawn anew forget what was trained. Drop one."
            )


class BorrowedConfig(Section):
    """A split from elsewhere; its file alone may stand for it."""

    file: str  # a split, scores, a table of counts, a run's folder, or published:NAME
    map: dict[str, str] | None = None  # the recipe's task to the split's; None: `compare.map`

    @model_validator(mode="before")
    @classmethod
    def _take_file(cls, values: Any) -> Any:
        return {"file": values} if isinstance(values, str) else values


class CompareConfig(Section):
    """What the split network is measured against, and how often."""

    seeds: int = Field(default=3, ge=1, le=MOST_SEEDS)
    methods: list[str] = Field(default=["joint"], min_length=1)
    controls: list[
        Literal[
            "norm-only", "random", "random-params", "first-k", "least", "smallest-first", "wider"
        ]
    ] = ["norm-only", "random", "random-params", "first-k", "least", "wider"]
    rules: list[str] = []  # further splits: each of these rules at each of the sizes `ks`
    ks: list[Count] = []
    splits: dict[Annotated[str, Field(min_length=1)], BorrowedConfig] = {}  # from elsewhere
    map: dict[str, str] = {}  # the recipe's task to what a split from elsewhere calls it
    delta_m: Literal["per-task", "flat"] = "per-task"  # mean over tasks, or over all metrics alike
    during: bool = False  # a row that is split while it trains, at `split.at`
    single: list[str] = []  # tasks with a single-task model, of which delta_m is made; empty: all

    @field_validator("methods", "controls", "rules", "ks", "single")
    @classmethod
    def _check_unique(cls, values: list[Any]) -> list[Any]:
        if twice := [value for value, n in Counter(values).items() if n > 1]:
            raise ValueError(f"each may be named once, {twice[0]!r} is named twice")
        return values

    def broken_rules(self) -> Iterator[str]:
        """Rules need sizes, and sizes rules."""
        if bool(self.rules) != bool(self.ks):
            yield (
                f"`compare.rules` and `compare.ks` need each other, got {self.rules} and "
                f"{self.ks}. Set both, or neither."
            )
