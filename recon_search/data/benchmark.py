"""Data sets of papers: the tasks that they bring, those that are learned, where to get them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recon_search.data.table import find_root
from recon_search.errors import DataError, RecipeError, nearest
from recon_search.recipe import DataConfig, TaskConfig

EVERY = "*"
"""The table of a recipe whose options are those of every task."""


@dataclass(frozen=True)
class Benchmark:
    """A data set that brings its tasks with it.

    Attributes:
        name: by which recipes know it.
        home: where people get it, in a sentence.
        tasks: by name the kind, options as papers have them, and `target` where a folder or column
            may be called otherwise.
        is_public: whether torchvision can download it.
    """

    name: str
    home: str
    tasks: Mapping[str, Mapping[str, Any]]
    is_public: bool = False

    def settle(self, config: DataConfig, tables: Mapping[str, TaskConfig]) -> dict[str, TaskConfig]:
        """Return the tasks that are learned, as the data set and a recipe describe them.

        Args:
            config: `tasks` chooses some; all without it.
            tables: change options; the table "*" those of all tasks that do not change them.

        Raises:
            RecipeError: a task is unknown, or an option is the data set's own.
            DataError: a download is asked for that there is none of.
        """
        if config.download and not self.is_public:
            raise DataError(
                f"`data.download` must be false for '{self.name}', which nobody may hand on "
                f"without being asked. {self.home}"
            )
        for name in config.tasks:
            if name not in self.tasks:
                raise RecipeError(self._unknown("`data.tasks` must name tasks of the data", name))
        names = [name for name in self.tasks if not config.tasks or name in config.tasks]
        for name, table in tables.items():
            self._check(name, table, names)
        shared = tables[EVERY].options if EVERY in tables else {}
        found = {}
        for name in names:
            own = tables.get(name, TaskConfig())
            options = {**self.tasks[name], **shared, **own.options}
            options["target"] = own.target or options.get("target")
            found[name] = TaskConfig(**options)
        return found

    def root(self, config: DataConfig) -> Path:
        """Return the folder of the data (see `find_root`), and where to get it if there is none."""
        try:
            return find_root(config)
        except DataError as error:
            raise DataError(f"{error} {self.home}") from None

    def find(self, root: Path, *names: str, what: str = "") -> Path:
        """Return the first of some files or folders that there is.

        Args:
            root: folder of the data.
            names: below it, or patterns.
            what: is looked for; the first name if not given.

        Raises:
            DataError: there is none; says where it was looked for and where people get it.
        """
        for name in names:
            for path in sorted(root.glob(name)):
                return path
        raise DataError(
            f"'{self.name}' data need {what or names[0]}, found none in {root} (looked for "
            f"{', '.join(names)}). {self.home}"
        )

    def _check(self, name: str, table: TaskConfig, learned: Sequence[str]) -> None:
        if name != EVERY and name not in self.tasks:
            raise RecipeError(self._unknown(f"`tasks.{name}` must be a task of the data", name))
        if name not in (*learned, EVERY):
            raise RecipeError(
                f"`tasks.{name}` must be among `data.tasks`, which has {', '.join(learned)}. Add "
                "it there, or remove the table."
            )
        own = [] if "target" in self.tasks.get(name, {}) else ["target"]
        for key in ("kind", *own, *(["head"] if name == EVERY else [])):
            if getattr(table, key) is not None:
                raise RecipeError(
                    f"`tasks.{name}.{key}` cannot be chosen for '{self.name}' data, got "
                    f"{getattr(table, key)!r}. Remove it."
                )

    def _unknown(self, rule: str, name: str) -> str:
        return (
            f"{rule}, which has {', '.join(self.tasks)}, got '{name}'."
            f"{nearest(name, self.tasks)} Rename or remove it."
        )
