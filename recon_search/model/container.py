"""Modules by task, whatever the tasks are called."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView

from torch import nn

from recon_search.graph.names import decode, encode


class TaskModules(nn.ModuleDict):
    """A `ModuleDict` whose keys may be any task's name: `train`, `depth (m)`, `v1.5`.

    In the state dict a key is written as in the paths of branches (see `graph.names.encode`):
    ordinary names as they are.
    """

    def __getitem__(self, key: str) -> nn.Module:
        """Return the module of a task."""
        return super().__getitem__(encode(key))

    def __setitem__(self, key: str, module: nn.Module) -> None:
        """Set the module of a task."""
        super().__setitem__(encode(key), module)

    def __delitem__(self, key: str) -> None:
        """Remove the module of a task."""
        super().__delitem__(encode(key))

    def __contains__(self, key: str) -> bool:
        """Tell whether a task has a module."""
        return super().__contains__(encode(key))

    def __iter__(self) -> Iterator[str]:
        """Iterate over the tasks."""
        return map(decode, super().__iter__())

    def keys(self) -> KeysView[str]:
        """Return the tasks."""
        return dict(_by_task(self)).keys()

    def items(self) -> ItemsView[str, nn.Module]:
        """Return pairs of task and module."""
        return dict(_by_task(self)).items()


def _by_task(modules: nn.ModuleDict) -> Iterator[tuple[str, nn.Module]]:
    return zip(modules, modules.values(), strict=True)
