"""Tasks from cells of tables, from pictures or from specs: `create_task(task.spec()) == task`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from recon_search.errors import ArtefactError, RecipeError, nearest
from recon_search.imports import call, import_callable, is_import_path, is_standard
from recon_search.tasks import arguments
from recon_search.tasks.binary import Binary
from recon_search.tasks.classes import Classes
from recon_search.tasks.depth import Depth
from recon_search.tasks.edges import Edges
from recon_search.tasks.labels import Labels
from recon_search.tasks.normals import Normals
from recon_search.tasks.segments import Segments
from recon_search.tasks.task import CellTask, PixelTask, Task
from recon_search.tasks.values import Values

OF_CELLS: dict[str, type[Classes] | type[Binary] | type[Labels] | type[Values]] = {
    "classes": Classes,
    "binary": Binary,
    "labels": Labels,
    "values": Values,
}
"""Kinds whose label of an image is a cell of a table."""

OF_PIXELS: dict[str, type[Segments] | type[Depth] | type[Normals] | type[Edges]] = {
    "segments": Segments,
    "depth": Depth,
    "normals": Normals,
    "edges": Edges,
}
"""Kinds whose label of an image is a picture."""

METHODS = ("loss", "n_labels", "meter", "spec")
"""Of every class that is a kind of task; a spec may be a stranger's, so nothing else is called."""

KINDS = {**OF_CELLS, **OF_PIXELS}
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
        what = "The kind of a task"
        own: Any = None if is_standard(kind) else import_callable(kind, what)
        if not isinstance(own, type) or not all(hasattr(own, name) for name in METHODS):
            raise ArtefactError(
                f"{what} must be a class with {', '.join(METHODS)}, {kind} is {own!r}. Nothing "
                "else is called."
            )
        return _checked(call(kind, what, **rest), kind)
    if not isinstance(kind, str) or kind not in KINDS:
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
    own = _fit(name, cells, options, OF_CELLS, "cells")
    if not isinstance(own, CellTask):
        raise RecipeError(
            f"The kind of task '{own.name}' must read cells, {options['kind']} made a "
            f"{type(own).__name__} without target, predict or units. Write these three."
        )
    return own


def fit_pixels(name: str, pictures: Iterable[Any], options: Mapping[str, Any]) -> PixelTask:
    """Make a task of the pictures of the training part that hold its labels.

    Args:
        name: of the task.
        pictures: arrays as files hold them, in any order; most kinds do not look at them.
        options: what a recipe says of the task: `kind`, and what `fit` of that kind takes.

    Raises:
        LabelError: the pictures are of no use to the kind.
        RecipeError: the kind is unknown or reads no pictures, or an option is of no use to it.
    """
    own = _fit(name, pictures, options, OF_PIXELS, "pictures")
    if not isinstance(own, PixelTask) or own.reads != "pyramid":
        raise RecipeError(
            f"The kind of task '{own.name}' must read pictures, {options['kind']} made a "
            f"{type(own).__name__} without target, blank, decode, units or a pyramid. Write these."
        )
    return own


def reads_pixels(kind: object, task: str) -> bool:
    """Tell whether a kind's labels are pictures; of one that is unknown, no.

    Raises:
        ReconSearchError: a kind of one's own cannot be imported.
    """
    if isinstance(kind, str) and is_import_path(kind):
        make = import_callable(kind, f"The kind of task '{task}'")
        return getattr(make, "reads", "vector") == "pyramid"
    return kind in OF_PIXELS


def _fit(
    name: str,
    labels: Iterable[Any],
    options: Mapping[str, Any],
    kinds: Mapping[str, Any],
    what: str,
) -> Task:
    rest = dict(options)
    kind = rest.pop("kind", None)
    if isinstance(kind, str) and is_import_path(kind):
        make = import_callable(kind, f"The kind of task '{name}'")
        if not hasattr(make, "fit"):
            raise RecipeError(
                f"The kind of task '{name}' must have a classmethod fit(name, {what}, **options) "
                f"to be made of files, {kind} has none. Write it, or hand in data by a factory."
            )
        try:
            inspect.signature(make.fit).bind(name, labels, **rest)
        except TypeError as error:
            raise RecipeError(
                f"Task '{name}' must be given what {kind}.fit takes, got {', '.join(rest)}: "
                f"{error}. Rename or remove it."
            ) from None
        return _checked(make.fit(name, labels, **rest), kind)
    if kind not in KINDS:
        raise RecipeError(f"Task '{name}': {_unknown(kind)}")
    if kind not in kinds:
        raise RecipeError(
            f"The kind of task '{name}' must read {what} ({', '.join(kinds)}), got '{kind}'. "
            "Choose one of these, or data of another kind."
        )
    found: Task = kinds[kind].fit(name, labels, **rest)
    return found


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
