"""Tasks from their specs, and back: `create_task(task.spec()) == task`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from recon_search.errors import ArtefactError, nearest
from recon_search.tasks.classes import Classes
from recon_search.tasks.task import Task

KINDS: dict[str, Callable[..., Task]] = {"classes": Classes}
"""Every kind of task by its name in recipes and model directories."""


def create_task(spec: Mapping[str, Any]) -> Task:
    """Make the task that a spec describes.

    Raises:
        ArtefactError: the kind is unknown, or what it needs is missing or of no use to it.
    """
    rest = dict(spec)
    kind = rest.pop("kind", None)
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
