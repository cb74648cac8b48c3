"""Tasks from their specs, and back: `create_task(task.spec()) == task`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from recon_search.errors import ArtefactError, nearest
from recon_search.imports import call, is_import_path
from recon_search.tasks.classes import Classes
from recon_search.tasks.task import Task

KINDS: dict[str, Callable[..., Task]] = {"classes": Classes}
"""Every kind of task by its name in recipes and model directories."""


def create_task(spec: Mapping[str, Any]) -> Task:
    """Make the task that a spec describes; a kind of one's own is "package.module:name".

    Raises:
        ArtefactError: the kind is unknown, or what it needs is missing or of no use to it.
    """
    rest = dict(spec)
    kind = rest.pop("kind", None)
    if isinstance(kind, str) and is_import_path(kind):
        own = call(kind, "The kind of a task", **rest)
        if not isinstance(own, Task):
            raise ArtefactError(
                f"The kind of a task must make a recon_search.Task, {kind} made "
                f"{type(own).__name__}. Give it what Task asks for."
            )
        return own
    if kind not in KINDS:
        raise ArtefactError(
            f"The kind of a task must be one of {', '.join(KINDS)}, got {kind!r}."
            f"{nearest(str(kind), KINDS)}"
        )
    try:
        return KINDS[kind](**rest)
    except TypeError as error:
        raise ArtefactError(
            f"A task of kind '{kind}' cannot be made of {rest}: {error}. Write it again."
        ) from None
