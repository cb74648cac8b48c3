"""Recipes: TOML into typed, frozen configuration, all errors reported together."""

from __future__ import annotations

import json
import math
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from recon_search.errors import RecipeError, nearest
from recon_search.imports import is_import_path

DEFAULT_K = 3
"""Layers that are split where a recipe says neither how many nor how large."""

LEAST_SEEDS = 2
"""Probes that show how far seeds differ."""


class Section(BaseModel):
    """A table of a recipe: typed, frozen, strict. Rules between its keys are `broken_rules`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def broken_rules(self) -> Iterator[str]:
        """Say what does not fit together, a sentence a rule; called on keys that are valid."""
        yield from ()

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        if broken := list(self.broken_rules()):
            raise PydanticCustomError("rules", "{broken}", {"broken": broken})
        return self


class DataConfig(Section):
    """What is learned: a data set by name and the sizes of its parts."""

    name: str
    root: str | None = None
    download: bool = False
    train: int | None = Field(default=None, gt=1)
    validation: int | None = Field(default=None, gt=0)
    test: int | None = Field(default=None, gt=0)
    canvas: int | None = Field(default=None, ge=8)
    seed: int = 0


class BackboneConfig(Section):
    """A timm model: its name, its arguments, and the width of the features the heads share."""

    name: str
    args: dict[str, Any] = {}
    features: int = Field(default=0, ge=0)  # timm's num_classes; 0: the pooled features as they are
    weights: str | None = None  # a local checkpoint, .safetensors
    pretrained: bool = False  # timm's own weights, from its hub or the hub's cache


class HeadConfig(Section):
    """The head of every task: the features' activation, then a linear layer or an MLP.

    Or a head of one's own: `kind = "package.module:name"`, which is called with the width of the
    features, the number of outputs and `args`.
    """

    kind: str = "linear"
    activation: Literal["none", "relu", "gelu"] = "none"
    hidden: int = Field(default=128, gt=0)
    args: dict[str, Any] = {}

    @property
    def is_own(self) -> bool:
        """Whether the head is imported."""
        return is_import_path(self.kind)

    @field_validator("kind")
    @classmethod
    def _check_kind(cls, kind: str) -> str:
        if kind not in ("linear", "mlp") and not is_import_path(kind):
            raise ValueError('must be "linear", "mlp" or "package.module:name"')
        return kind

    def broken_rules(self) -> Iterator[str]:
        """Arguments are for heads of one's own."""
        if self.args and not self.is_own:
            yield (
                f'`head.args` needs a `head.kind` like "package.module:name", got {self.args} for '
                f"'{self.kind}'. Leave them out."
            )


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


class SplitConfig(Section):
    """Which layers get private copies."""

    rule: str = "projection"
    k: int | None = Field(default=None, ge=0)  # without it and `max_params`: DEFAULT_K
    max_params: Annotated[str, Field(pattern=r"^\d+(\.\d+)?x$")] | None = None
    threshold: float = Field(default=0.0, gt=-1, le=0)
    grouping: Literal["private", "colour"] = "private"
    group_share: float = Field(default=0.5, gt=0, le=1)  # conflicting steps that separate two tasks
    init: Literal["copy", "fresh"] = "copy"

    @model_validator(mode="before")
    @classmethod
    def _settle_k(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("k") is values.get("max_params") is None:
            return {**values, "k": DEFAULT_K}
        return values

    def broken_rules(self) -> Iterator[str]:
        """A number of layers and a budget exclude each other."""
        if self.k is not None and self.max_params is not None:
            yield (
                f"`split.k` and `split.max_params` exclude each other, got {self.k} and "
                f"{self.max_params}. Leave one out."
            )


class CompareConfig(Section):
    """What the split network is measured against, and how often."""

    seeds: int = Field(default=3, ge=1)
    methods: list[str] = Field(default=["joint"], min_length=1)
    controls: list[
        Literal[
            "norm-only", "random", "random-params", "first-k", "least", "smallest-first", "wider"
        ]
    ] = ["norm-only", "random", "random-params", "first-k", "least", "wider"]
    rules: list[str] = []  # further splits: each of these rules at each of the sizes `ks`
    ks: list[Annotated[int, Field(gt=0)]] = []

    @field_validator("methods", "controls", "rules", "ks")
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

    trials: int = Field(default=30, gt=0)  # in all, for the study; deduplicated ones do not count
    seed: int = Field(default=0, ge=0)  # of what Optuna draws
    objective: Literal["delta_m", "delta_m-parameters", "delta_m-flops"] = "delta_m"  # or a front
    max_params: Annotated[str, Field(pattern=r"^\d+(\.\d+)?x$")] | None = None  # or split's
    space: dict[str, Range | Annotated[list[Value], Field(min_length=1)]] = {}
    start: Literal["scratch", "shared"] = "scratch"  # of a trial: or the trained joint network
    pruner: Literal["halving", "hyperband", "none"] = "halving"
    patience: int = Field(default=0, ge=0)  # epochs without improvement before the pruner may prune
    heartbeat: int = Field(default=30, gt=0)  # seconds; a trial silent for four of them is retried
    retries: int = Field(default=3, ge=0)  # of a trial whose worker died


class Recipe(Section):
    """A whole run."""

    seed: int = Field(default=0, ge=0)
    data: DataConfig
    backbone: BackboneConfig
    head: HeadConfig = HeadConfig()
    train: TrainConfig
    probe: ProbeConfig
    split: SplitConfig = SplitConfig()
    compare: CompareConfig = CompareConfig()
    search: SearchConfig = SearchConfig()


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, `.toml` or the resolved `.json` of an earlier run.

    Args:
        path: the file.
        overrides: `a.b=value`, the value in TOML notation or a bare string.

    Raises:
        RecipeError: every unknown key, wrong type and value out of range, in one message.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        raw = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except FileNotFoundError:
        raise RecipeError(f"A recipe is needed, found no file at {path}. Check the path.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise RecipeError(f"A recipe must be TOML, could not read {path}: {error}.") from None
    for override in overrides:
        _override(raw, override)
    return parse_recipe(raw, str(path))


def parse_recipe(raw: Any, source: str = "recipe") -> Recipe:
    """Turn plain data into a recipe.

    Raises:
        RecipeError: lists every problem by its path.
    """
    try:
        text = json.dumps(raw)  # strict JSON mode takes arrays for tuples, and nothing else lax
    except TypeError as error:
        raise RecipeError(f"{source} must hold plain values: {error}.") from None
    try:
        return Recipe.model_validate_json(text)
    except ValidationError as error:
        lines = [line for problem in error.errors() for line in _describe(problem)]
        raise RecipeError("\n".join(f"{source}: {line}" for line in lines)) from None


def _override(raw: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    if not separator or not path.strip():
        raise RecipeError(f"--set must be path=value, got '{override}'. Example: --set split.k=10")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *sections, key = path.strip().split(".")
    for section in sections:
        raw = raw.setdefault(section, {})
        if not isinstance(raw, dict):
            raise RecipeError(
                f"--set {path}: '{section}' is a value, not a section. Check the path."
            )
    raw[key] = value


def _describe(problem: Any) -> list[str]:
    """One sentence for one pydantic error, addressed by its path; of broken rules one each."""
    if problem["type"] == "rules":
        return list(problem["ctx"]["broken"])
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _keys_beside(problem["loc"])
        return [f"`{path}` is no key of a recipe.{nearest(str(problem['loc'][-1]), known)}"]
    if problem["type"] == "missing":
        return [f"`{path}` is needed and missing."]
    return [f"`{path}`: {problem['msg'].lower()}, got {problem['input']!r}."]


def _keys_beside(loc: tuple[int | str, ...]) -> list[str]:
    """The valid keys of the section in which an unknown key was found."""
    model: type[BaseModel] = Recipe
    for part in loc[:-1]:
        annotation = model.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
