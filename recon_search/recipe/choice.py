"""`[split]` and `[compare]`: which layers get private copies, and what that is held against."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from recon_search.recipe.section import MOST_SEEDS, Count, Section

DEFAULT_K = 3
"""Layers that are split where a recipe says neither how many nor how large."""


def _check_factor(text: str) -> str:
    if float(text[:-1]) < 1:
        raise ValueError("must be at least 1x, what the unsplit backbone takes")
    return text


Moment = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)]
"""An epoch, or a share of the epochs."""

Factor = Annotated[str, Field(pattern=r"^\d+(\.\d+)?x$"), AfterValidator(_check_factor)]
"""A multiple of the unsplit backbone, as "1.3x"."""


class CopyConfig(Section):
    """What the copies of a layer are (see `model.copies`)."""

    kind: Literal["full", "low-rank", "gates"] = "full"
    """Whole copies, one weight with an update of low rank for each, or norms with gates."""

    rank: int = Field(default=4, ge=1, le=10**6)
    """Of low-rank updates."""


WHOLE = CopyConfig()
"""Copies as Recon has them."""


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", 'Field name "copy"')  # hides a deprecated method of pydantic

    class _Copies(Section):
        copy: Literal["full", "low-rank"] = "full"  # type: ignore[assignment]
        """Copies of a layer: whole, or one weight for all and a low-rank update for each."""

        rank: int = Field(default=4, ge=1, le=10**6)
        """Of low-rank updates, in the control `low-rank` too."""

        @property
        def copies(self) -> CopyConfig:
            """What copies are: whole, or one weight for all and a low-rank update for each."""
            if self.copy == "full":
                return WHOLE
            return CopyConfig(kind=self.copy, rank=self.rank)


class SplitConfig(_Copies):
    """Which layers get private copies."""

    rule: str = "projection"
    """How layers are ranked: `projection`, `mass`, `gain`, `count` as Recon does, or a control."""

    k: int | None = Field(default=None, ge=0)
    """Layers to split, the first of the ranking; 3 where neither this nor a limit is set."""

    max_params: Factor | None = None
    """Limit on the parameters in its stead, as "1.2x" of the unsplit backbone; layers that do not
    fit are passed over."""

    max_flops: Factor | None = None
    """Limit on the FLOPs of all tasks, as "1.5x" of the unsplit backbone; alone, or beside `k` or
    `max_params`."""

    threshold: float = Field(default=0.0, gt=-1, le=0)
    """S: a layer conflicts in a step where the cosine lies below it; for rules that count."""

    grouping: Literal["private", "colour", "affinity"] = "private"
    """Who shares a copy: nobody, tasks that do not conflict, or tasks whose gradients agree."""

    max_groups: int | None = Field(default=None, ge=2)
    """Copies of a layer, at most; for groupings that share."""

    group_share: float = Field(default=0.5, gt=0, le=1)
    """Share of measured steps in conflict from which on two tasks are separated."""

    init: Literal["copy", "fresh"] = "copy"
    """Copies of a layer start equal, or each is drawn anew, as Recon's code does."""

    when: Literal["before", "during"] = "before"
    """Before a training, after a probe of its own; or during it, from what it has measured."""

    at: Moment | Annotated[list[Moment], Field(min_length=1)] = 0.5
    """Epoch, or share of the epochs, after which a training is split. After each of several an
    equal part of the `k` layers is, by what was measured since the one before."""

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
        if self.copy == "low-rank" and self.init == "fresh":
            yield (
                '`split.copy` "low-rank" and `split.init` "fresh" exclude each other: low-rank '
                "copies share the weight that fresh ones would draw anew. Drop one."
            )
        yield from self._broken_in_turn()
        if self.when == "during" and self.copy != "full":
            yield (
                f'`split.when` "during" needs `split.copy` "full", got "{self.copy}": what an '
                "optimiser has gathered is carried over to whole copies alone. Drop one."
            )
        if self.when == "during" and self.init == "fresh":
            yield (
                '`split.when` "during" needs `split.init` "copy", got "fresh": copies that are '
                "drawn anew forget what was trained. Drop one."
            )

    def _broken_in_turn(self) -> Iterator[str]:
        """Layers that are split in turn are counted, and each is split among all tasks."""
        n = len(self.at) if isinstance(self.at, list) else 1
        if n == 1:
            return
        if self.k is None or self.k < n or self.max_flops is not None:
            yield (
                f"`split.at` with {n} epochs needs a `split.k` of {n} or more and no limit beside "
                f"it, got k {self.k}, max_params {self.max_params} and max_flops "
                f"{self.max_flops}. Change one."
            )
        if self.grouping != "private":
            yield (
                f'`split.at` with {n} epochs needs `split.grouping` "private", got '
                f'"{self.grouping}": groups are made of what all layers measured. Drop one.'
            )


class BorrowedConfig(Section):
    """A split from elsewhere; its file alone may stand for it."""

    file: str
    """A split, scores, a table of counts, the folder of a run, or published:NAME."""

    map: dict[str, str] | None = None
    """The recipe's task to what this split calls it; without it `compare.map`."""

    @model_validator(mode="before")
    @classmethod
    def _take_file(cls, values: Any) -> Any:
        return {"file": values} if isinstance(values, str) else values


class CompareConfig(Section):
    """What the split network is measured against, and how often."""

    seeds: int = Field(default=3, ge=1, le=MOST_SEEDS)
    """Trainings of every row, paired by seed."""

    methods: list[str] = Field(default=["joint"], min_length=1)
    """Gradient methods by which the joint and the split network are trained; the first also trains
    the controls."""

    controls: list[
        Literal[
            "norm-only",
            "norm-gates",  # private norms, a sigmoid gate a channel: arXiv 2512.20420
            "random",
            "random-params",  # as many parameters as the split
            "random-flops",  # as many layers, and nearly as many FLOPs
            "first-k",
            "last-k",  # deeper heads
            "least",
            "smallest-first",
            "wider",
            "sparse",  # no split, a share of the weights never changes: arXiv 2411.18615
            "low-rank",  # the split's layers, low-rank copies of `split.rank`
            "tuned-weights",  # no split, the best of so many fixed loss weights
        ]
    ] = ["norm-only", "random", "random-params", "first-k", "least", "wider"]
    """What a split must beat: norms alone, layers at random, first, last, least in conflict or
    smallest, a wider joint network; norms with gates, sparse updates, low-rank copies, tuned loss
    weights."""

    update_share: float = Field(default=0.3, gt=0, lt=1)
    """Share of the backbone's weights that the control `sparse` updates."""

    weight_trials: int = Field(default=8, ge=2, le=MOST_SEEDS)
    """Fixed loss weights among which the control `tuned-weights` chooses, for each seed."""

    rules: list[str] = []
    """Further splits: by each of these rules at each of the sizes `ks`."""

    ks: list[Count] = []
    """Layers to split by each of `rules`."""

    budgets: list[Factor] = []
    """FLOPs, as "1.3x", within which each of `rules` splits layers, `split.k` at most."""

    splits: dict[Annotated[str, Field(min_length=1)], BorrowedConfig] = {}
    """Splits from elsewhere by name: a file, or a table with `file` and `map`."""

    map: dict[str, str] = {}
    """The recipe's task to what a split from elsewhere calls it."""

    delta_m: Literal["per-task", "flat"] = "per-task"
    """Mean over each task's metrics and then over tasks, or over all metrics alike."""

    during: bool = False
    """Add a row that is split while it trains, at `split.at`."""

    single: list[str] = []
    """Tasks with a single-task model, of which delta_m is made; all where it is empty."""

    @field_validator("methods", "controls", "rules", "ks", "budgets", "single")
    @classmethod
    def _check_unique(cls, values: list[Any]) -> list[Any]:
        if twice := [value for value, n in Counter(values).items() if n > 1]:
            raise ValueError(f"each may be named once, {twice[0]!r} is named twice")
        return values

    def broken_rules(self) -> Iterator[str]:
        """Rules need sizes or budgets, and these need rules."""
        sizes = [*self.ks, *self.budgets]
        if bool(self.rules) != bool(sizes):
            yield (
                "`compare.rules` and `compare.ks` or `compare.budgets` need each other, got "
                f"{self.rules} and {sizes}. Set both, or neither."
            )
