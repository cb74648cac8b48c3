"""Names of layers and tasks, as callers give them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from recon_search.errors import RecipeError, nearest


def check_names(what: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return names of layers or tasks as a tuple.

    Raises:
        RecipeError: they are no sequence of distinct strings, one at least.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise RecipeError(
            f"`{what}` must be a sequence of names, got {names!r}. Pass ['{names}', ...]."
        )
    found = tuple(names)
    if wrong := [name for name in found if not isinstance(name, str)]:
        raise RecipeError(
            f"`{what}` must be a sequence of names, it holds a {type(wrong[0]).__name__}. "
            "Pass strings."
        )
    if not found:
        raise RecipeError(f"`{what}` must name one at least, got none. Name what is measured.")
    if twice := [name for name, other in itertools.pairwise(sorted(found)) if name == other]:
        raise RecipeError(
            f"`{what}` must name each once, '{twice[0]}' is named twice. Leave it out."
        )
    return found


def check_presence(tasks: tuple[str, ...], present: Tensor | Iterable[Any]) -> Tensor:
    """Which tasks are present, as bools (T,); see `ConflictScores.update`.

    Raises:
        RecipeError: it is neither names of tasks nor bools.
    """
    n_tasks = len(tasks)
    if isinstance(present, Mapping):
        present = [task for task, loss in present.items() if loss is not None]
    is_text = isinstance(present, str)
    given: Any = present if isinstance(present, Tensor) or is_text else list(present)
    if not is_text and len(given) == n_tasks and all(_is_flag(each) for each in given):
        return torch.as_tensor(given, dtype=torch.bool)
    if isinstance(given, Tensor) or is_text or any(_is_flag(each) for each in given):
        found = tuple(given.shape) if isinstance(given, Tensor) else repr(given)
        raise RecipeError(
            f"`present` must be names of tasks or bools of shape ({n_tasks},), got {found}. "
            "Name the tasks that had a loss in this step, in a list."
        )
    if unknown := [task for task in given if task not in tasks]:
        raise RecipeError(
            f"`present` must name tasks of {', '.join(tasks)}, got {unknown[0]!r}."
            f"{nearest(str(unknown[0]), tasks)}"
        )
    return torch.tensor([task in given for task in tasks])


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, Tensor) and value.dtype == torch.bool)


def check_shape(gramians: Any, n_layers: int, n_tasks: int) -> None:
    """Refuse what cannot be the Gramians of so many layers and tasks.

    Raises:
        RecipeError: with the shape found.
    """
    shape = tuple(gramians.shape) if isinstance(gramians, Tensor) else type(gramians).__name__
    if shape != (n_layers, n_tasks, n_tasks):
        raise RecipeError(
            f"gramians must be of shape (L, T, T) = ({n_layers}, {n_tasks}, {n_tasks}), got "
            f"{shape}. Pass what recon_search.gramians returns for these layers and tasks."
        )
