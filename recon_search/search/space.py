"""What the search varies: recipe keys, each with its choices or its range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from optuna.trial import BaseTrial

from recon_search.conflict.rules import Reading, find_rule, norm_only, rank
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import RecipeError
from recon_search.recipe import Range, Recipe, Value, parse_recipe

SECTIONS = ("split", "train")
"""Sections whose keys may be searched: they change neither the probe nor the baselines."""

UNSEARCHED = {"split.max_params", "split.when", "split.at"}
"""Keys of these sections that are not: limits, and what leaves nothing to probe."""

OPTIONS = "train.options."
"""Where the options of the recipe's method lie."""

WEIGHTS = "train.weights."
"""Where the weights of the tasks' losses lie."""

PAPER_K = 25
"""Layers that Recon splits (arXiv 2302.11289, section 5)."""

Space = dict[str, Range | list[Value]]
"""Ranges and choices by path of the recipe key, in the order in which they are drawn."""


def make_space(recipe: Recipe, scores: ConflictScores) -> Space:
    """What is searched: k, S, rule and grouping, and what `[search.space]` adds or replaces.

    Raises:
        RecipeError: as `check_space`.
    """
    space: Space = {
        "split.rule": ["projection", "count", "norm-only"],
        "split.grouping": ["private", "colour"] if len(scores.tasks) > 2 else ["private"],
        "split.k": Range(low=0, high=len(scores.layers)),
        "split.threshold": Range(low=-0.3, high=0.0, step=0.05),
        "split.group_share": Range(low=0.1, high=1.0, step=0.1),
    }
    check_space(recipe)
    return space | recipe.search.space


def check_space(recipe: Recipe) -> list[Recipe]:
    """Check that what `[search.space]` names may be searched, at each of its values.

    Returns:
        The recipe at each of the values, one changed at a time.

    Raises:
        RecipeError: a key cannot be searched, or the recipe would not be valid at a value.
    """
    changed = []
    for path, values in recipe.search.space.items():
        if not _is_searchable(path):
            raise RecipeError(
                f"`search.space` takes keys of {' and '.join(SECTIONS)}, got '{path}'. For a limit "
                "on parameters set search.max_params; leave other keys to the recipe."
            )
        if path == "split.threshold" and isinstance(values, Range) and not _is_grid(values):
            raise RecipeError(
                "A range of split.threshold must begin at and step by multiples of 0.01, got low = "
                f"{values.low}, step = {values.step}. Set step = 0.05, for instance."
            )
        ends = (values.low, values.last) if isinstance(values, Range) else values
        changed += [with_values(recipe, {path: value}) for value in ends]
    return changed


def draw(trial: BaseTrial, space: Space) -> dict[str, Any]:
    """Draw the keys a trial needs; those its rule and grouping do not read stay undrawn."""
    values: dict[str, Any] = {}
    for path, allowed in space.items():
        if not _is_read(path, values):
            continue
        if not isinstance(allowed, Range):
            values[path] = trial.suggest_categorical(path, allowed)
        elif allowed.is_integer:
            low, last, step = int(allowed.low), int(allowed.last), int(allowed.step or 1)
            values[path] = trial.suggest_int(path, low, last, step=step, log=allowed.log)
        else:
            high = allowed.high if allowed.step is None else round(allowed.last, 10)
            drawn = trial.suggest_float(path, allowed.low, high, step=allowed.step, log=allowed.log)
            # -0.3 + 2 * 0.05 is -0.19999999999999998; without steps, what is drawn may be tiny.
            values[path] = drawn if allowed.step is None else round(drawn, 10)
    return values


def with_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with some keys set; another method than the recipe's has its default options.

    Raises:
        RecipeError: it is not valid so.
    """
    raw = recipe.model_dump(mode="json")
    if raw["split"]["k"] is None:
        raw["split"] |= {"k": 0, "max_params": None}
    has_options = values.get("train.method", recipe.train.method) == recipe.train.method
    if not has_options:
        raw["train"]["options"] = {}
    for path, value in values.items():
        if path.startswith(OPTIONS) and not has_options:
            continue
        if path.startswith(WEIGHTS):
            raw["train"]["weights"][path.removeprefix(WEIGHTS)] = value
            continue
        section, *keys, last = path.split(".")
        target = raw[section]
        for key in keys:
            target = target.setdefault(key, {})
        target[last] = value
    return parse_recipe(raw, "search.space")


def first_trials(recipe: Recipe, scores: ConflictScores, space: Space) -> list[dict[str, Any]]:
    """Sensible first guesses: no split, norms only, the paper's k, the knees of the score curves.

    Keys left out are drawn. A guess outside the space is left out.
    """
    threshold = recipe.split.threshold
    guesses: list[dict[str, Any]] = [{"split.k": 0}]
    reading = Reading(threshold, recipe.probe.window)
    n_norms = int(norm_only(scores, reading).isfinite().sum())
    guesses.append({"split.rule": "norm-only", "split.k": n_norms})
    paper = min(PAPER_K, len(scores.layers))
    guesses.append({"split.rule": "count", "split.k": paper, "split.threshold": threshold})
    for rule in ("projection", "count"):
        knee = {
            "split.rule": rule,
            "split.k": find_knee([v for _, v in rank(scores, rule, reading)]),
        }
        guesses.append(knee if rule == "projection" else knee | {"split.threshold": threshold})
    return [guess for guess in guesses if _is_inside(guess, space)]


def find_knee(values: Sequence[float]) -> int:
    """Number of layers at which a falling curve of scores bends most.

    Where the curve of cumulated scores lies farthest above its chord; 0 where no score is positive.

    Args:
        values: scores in falling order.
    """
    curve = torch.tensor(values, dtype=torch.float64).clamp(min=0).cumsum(0)
    if not len(curve) or curve[-1] <= 0:
        return 0
    share = torch.arange(1, len(curve) + 1, dtype=torch.float64) / len(curve)
    return int((curve / curve[-1] - share).argmax()) + 1


def _is_grid(allowed: Range) -> bool:
    """Whether every value of a range is a multiple of 0.01, as thresholds are."""
    hundredths = (100 * allowed.low, 100 * (allowed.step or 0.001))
    return all(abs(number - round(number)) < 1e-6 for number in hundredths)


def _is_searchable(path: str) -> bool:
    """Whether a path leads to one key of the sections that may be searched."""
    if path.startswith(WEIGHTS):  # by task, whose name may have dots
        return len(path) > len(WEIGHTS)
    section, _, key = path.removeprefix(OPTIONS).rpartition(".")
    if path.startswith(OPTIONS):
        return bool(key) and not section
    return section in SECTIONS and path not in UNSEARCHED


def _is_read(path: str, values: Mapping[str, Any]) -> bool:
    """Whether the split depends on a key, given what has been drawn before it."""
    colour = values.get("split.grouping") == "colour"
    if path == "split.threshold":
        return colour or find_rule(values.get("split.rule", "count")).reads_threshold
    return colour if path == "split.group_share" else True


def _is_inside(guess: Mapping[str, Value], space: Space) -> bool:
    """Whether every value is one that could be drawn."""
    for path, value in guess.items():
        allowed = space[path]
        if not isinstance(allowed, Range):
            if value not in allowed:
                return False
        elif not isinstance(value, int | float) or not allowed.low <= value <= allowed.high:
            return False
        elif allowed.step is not None:
            steps = (value - allowed.low) / allowed.step
            if abs(steps - round(steps)) > 1e-6:
                return False
    return True
