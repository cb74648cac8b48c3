"""`[data]` and `[tasks]`: what is learned, and from what."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from recon_search.recipe.network import HeadConfig
from recon_search.recipe.section import Section


class DataConfig(Section):
    """What is learned from: a data set by name and the sizes of its parts."""

    name: str
    root: str | None = None
    download: bool = False
    train: int | None = Field(default=None, gt=1)
    validation: int | None = Field(default=None, gt=0)
    test: int | None = Field(default=None, gt=0)
    canvas: int | None = Field(default=None, ge=8)
    seed: int = 0


class TaskConfig(Section):
    """One task: its kind, where its labels are, its head, and options of the kind.

    Of data that brings its tasks with it, `kind` and `target` are known; a table of that name
    changes options of the task, such as its weight, or its head.
    """

    model_config = ConfigDict(extra="allow")

    kind: str | None = None
    target: str | None = None  # column, folder or key; the task's own name by default
    head: HeadConfig | None = None  # without it: `[head]`

    @property
    def options(self) -> dict[str, Any]:
        """What the kind is made with, such as `weight`, `metrics` and `classes`."""
        return dict(self.model_extra or {})
