"""A recipe as a whole: TOML into sections, all errors reported together."""

from __future__ import annotations

import itertools
import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from recon_search import json_text, seals
from recon_search.disk import refuse_special
from recon_search.errors import RecipeError, nearest, shortened
from recon_search.recipe.choice import CompareConfig, SplitConfig
from recon_search.recipe.data import DataConfig, TaskConfig
from recon_search.recipe.network import BackboneConfig, HeadConfig, HeadsConfig, NeckConfig
from recon_search.recipe.problems import describe
from recon_search.recipe.search import SearchConfig
from recon_search.recipe.section import Section, Seed
from recon_search.recipe.shipped import find_recipe, shipped_recipes
from recon_search.recipe.training import ProbeConfig, TrainConfig

LARGEST = 2**20
"""Bytes of a recipe, at most."""


class Recipe(Section):
    """A whole run."""

    seed: Seed = 0
    """Of the first training; others count on from there."""

    data: DataConfig
    """What is learned from."""

    tasks: dict[str, TaskConfig] = {}
    """What is learned, by name; options of a kind, such as `weight` and `metrics`, stand beside its
    keys."""

    backbone: BackboneConfig
    """The network that tasks share."""

    head: HeadConfig = HeadConfig()
    """Of every task that has none of its own."""

    necks: dict[str, NeckConfig] = {}
    """Hidden parts that several heads read through, by name."""

    train: TrainConfig
    """How networks are trained."""

    probe: ProbeConfig
    """How conflicts are measured."""

    split: SplitConfig = SplitConfig()
    """Which layers are split, and how."""

    compare: CompareConfig = CompareConfig()
    """What the split network is held against, and how often."""

    search: SearchConfig = SearchConfig()
    """What is searched for, and how long."""

    @property
    def heads(self) -> HeadsConfig:
        """The heads of all tasks."""
        own = {name: task.head for name, task in self.tasks.items() if task.head is not None}
        return HeadsConfig.model_construct(head=self.head, heads=own, necks=self.necks)

    def broken_rules(self) -> Iterator[str]:
        """Heads name necks; a split in the midst of training needs epochs on both sides."""
        yield from self.heads.broken_rules()
        if self.split.when == "during" and self.compare.during:
            yield (
                "`compare.during` adds a row that is split while it trains, with `split.when` "
                '"during" every split row is. Drop one.'
            )
        if self.split.when == "before" and not self.compare.during:
            return
        key = "split.when" if self.split.when == "during" else "compare.during"
        moments = (0, *self.epochs_of_split, self.train.epochs)
        if any(later <= earlier for earlier, later in itertools.pairwise(moments)):
            yield (
                "`split.at` must leave an epoch before, between and after its own "
                f"(`{key}`), got {self.split.at} of `train.epochs` {self.train.epochs}. Change one."
            )
        if self.train.patience:
            yield (
                f"`train.patience` may end a training before it is split (`{key}`), got "
                f"{self.train.patience}. Set it to 0, or drop the other."
            )
        if self.split.init == "fresh" and self.compare.during:
            yield (
                '`compare.during` needs `split.init` "copy", got "fresh": copies that are drawn '
                "anew forget what was trained. Drop one."
            )

    @property
    def epochs_of_split(self) -> tuple[int, ...]:
        """The epochs after which a network is split that is split while it trains."""
        moments = self.split.at if isinstance(self.split.at, list) else [self.split.at]
        n = self.train.epochs
        return tuple(at if isinstance(at, int) else max(1, round(at * n)) for at in moments)

    @property
    def moments_of_split(self) -> str:
        """`epochs_of_split` in words, as "epoch 3"."""
        *others, last = map(str, self.epochs_of_split)
        return f"epochs {', '.join(others)} and {last}" if others else f"epoch {last}"


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, `.toml` or the resolved `.json` of an earlier run.

    Args:
        path: the file, or the name of a recipe that comes with the package.
        overrides: `a.b=value`, the value in TOML notation or a bare string.

    Raises:
        RecipeError: every unknown key, wrong type and value out of range, in one message.
    """
    path = find_recipe(path)
    refuse_special(path)
    text = ""
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no regular file")
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it is larger than {LARGEST:,} bytes")
        text = path.read_text(encoding="utf-8")
        raw = json_text.parse(text) if path.suffix == ".json" else tomllib.loads(text)
    except FileNotFoundError:
        here = [each.name for each in path.parent.glob("*.toml") if each.name.isprintable()]
        raise RecipeError(
            f"A recipe is needed, found no file at {path}."
            f"{nearest(path.name, [*here, *shipped_recipes()])} Check the path, or take one of "
            f"{', '.join(shipped_recipes())}."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise RecipeError(
            f"A recipe must be {kind}, could not read {path}: {error}{_quote(error, text)}."
        ) from None
    if not isinstance(raw, dict):
        raise RecipeError(f"A recipe must be a table of sections, {path} holds none. Write one.")
    if path.suffix == ".json":
        raw = seals.unseal(raw, path, by_hand=True)
    for override in overrides:
        _override(raw, override)
    return parse_recipe(raw, str(path))


def _quote(error: Exception, text: str) -> str:
    """Quote the line of a text that an error names; "" where it names none."""
    lines = text.splitlines()
    named = re.search(r"at line (\d+)", str(error))
    number = len(lines) if "at end of document" in str(error) else int(named[1]) if named else 0
    if not 1 <= number <= len(lines):
        return ""
    return f", which reads {shortened(lines[number - 1].strip(), 160)!r}"


def parse_recipe(raw: Any, source: str = "recipe") -> Recipe:
    """Turn plain data into a recipe.

    Raises:
        RecipeError: lists every problem by its path.

    Examples:
        >>> raw = {"data": {"name": "multi-digits"}, "backbone": {"name": "resnet18"}}
        >>> raw |= {"train": {"epochs": 3, "batch_size": 32, "lr": 0.01}, "probe": {"epochs": 1}}
        >>> parse_recipe(raw).split.rule
        'projection'
        >>> parse_recipe(raw | {"spli": {}})
        Traceback (most recent call last):
        recon_search.errors.RecipeError: recipe: `spli` is no key of a recipe. Did you mean 'split'?
    """
    try:
        text = json.dumps(raw)  # strict JSON mode takes arrays for tuples, and nothing else lax
    except (TypeError, ValueError, RecursionError) as error:
        raise RecipeError(f"{source} must hold plain values: {error}.") from None
    try:
        return Recipe.model_validate_json(text)
    except ValidationError as error:
        lines = describe(error, json.loads(text), Recipe)
        raise RecipeError("\n".join(f"{source}: {line}" for line in lines)) from None


def _override(raw: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    if not separator or not path.strip():
        raise RecipeError(f"--set must be path=value, got '{override}'. Example: --set split.k=10")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    except (ValueError, RecursionError) as error:  # an integer too long, lists too deep
        raise RecipeError(f"--set {path[:80]}: the value must be TOML, {error}.") from None
    *sections, key = path.strip().split(".")
    for section in sections:
        raw = raw.setdefault(section, {})
        if not isinstance(raw, dict):
            raise RecipeError(
                f"--set {path}: '{section}' is a value, not a section. Check the path."
            )
    raw[key] = value
