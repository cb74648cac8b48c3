"""Tasks from cells of tables or from specs: `create_task(task.spec()) == task`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from recon_search.errors import ArtefactError, RecipeError, nearest
from recon_search.imports import call, import_callable, is_import_path
from recon_search.tasks import arguments
from recon_search.tasks.binary import Binary
from recon_search.tasks.classes import Classes
from recon_search.tasks.labels import Labels
from recon_search.tasks.task import CellTask, Task
from recon_search.tasks.values import Values

KINDS: dict[str, type[Classes] | type[Binary] | type[Labels] | type[Values]] = {
    "classes": Classes,
    "binary": Binary,
    "labels": Labels,
    "values": Values,
}
"""Every kind of task by its name in recipes and model directories."""


def create_task(spec: Mapping[str, Any]) -> Task:
    """Make the task that a spec describes; a kind of one's own is "package.module:name".

    Raises:
        ArtefactError: the kind is unknown, or what it needs is missing or unknown to it.
        RecipeError: a value is of no use to the kind.
    """
    rest = dict(spec)
    kind = rest.pop("kind", None)
    if isinstance(kind, str) and is_import_path(kind):
        return _checked(call(kind, "The kind of a task", **rest), kind)
    if kind not in KINDS:
        raise ArtefactError(_unknown(kind))
    make = KINDS[kind]
    arguments.check(make, kind, rest)
    return make(**rest)


def fit_task(name: str, cells: Iterable[Any], options: Mapping[str, Any]) -> CellTask:
    """Make a task of the cells of the training part.

    Args:
        name: of the task.
        cells: of its column, in any order.
        options: what a recipe says of the task: `kind`, and what `fit` of that kind takes.

    Raises:
        LabelError: the cells are of no use to the kind.
        RecipeError: the kind is unknown or reads no cells, or an option is of no use to it.
    """
    rest = dict(options)
    kind = rest.pop("kind", None)
    if isinstance(kind, str) and is_import_path(kind):
        make = import_callable(kind, f"The kind of task '{name}'")
        if not hasattr(make, "fit"):
            raise RecipeError(
                f"The kind of task '{name}' must have a classmethod fit(name, cells, **options) to "
                f"be made of a table, {kind} has none. Write it, or hand in data by a factory."
            )
        try:
            inspect.signature(make.fit).bind(name, cells, **rest)
        except TypeError as error:
            raise RecipeError(
                f"Task '{name}' must be given what {kind}.fit takes, got {', '.join(rest)}: "
                f"{error}. Rename or remove it."
            ) from None
        return _reading(_checked(make.fit(name, cells, **rest), kind), kind)
    if kind not in KINDS:
        raise RecipeError(f"Task '{name}': {_unknown(kind)}")
    return KINDS[kind].fit(name, cells, **rest)


def _unknown(kind: object) -> str:
    return (
        f"The kind of a task must be one of {', '.join(KINDS)}, or package.module:Kind, got "
        f"{kind!r}.{nearest(str(kind), KINDS)}"
    )


def _checked(own: object, kind: str) -> Task:
    if not isinstance(own, Task):
        raise ArtefactError(
            f"The kind of a task must make a recon_search.Task, {kind} made "
            f"{type(own).__name__}. Give it what Task asks for."
        )
    return own


def _reading(own: Task, kind: str) -> CellTask:
    if not isinstance(own, CellTask):
        raise RecipeError(
            f"The kind of task '{own.name}' must read cells, {kind} made a "
            f"{type(own).__name__} without target, predict or units. Write these three."
        )
    return own
