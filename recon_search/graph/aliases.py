"""Tensors that several modules of a network share: saved once, and one again after torch made two.

Where a module was changed since, so that its tensor is another or gone, it is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from recon_search.graph.layout import Layout
from recon_search.graph.tensors import find, named_tensors, place


def find_aliases(network: nn.Module, layout: Layout) -> dict[str, str]:
    """Map every further name of a tensor of the network to the name where it lives."""
    homes = [home for name in layout.tensors for home in layout.homes(name)]
    lives = {id(find(network, home)): home for home in homes}
    names = {name: lives[id(tensor)] for name, tensor in named_tensors(network).items()}
    return {name: home for name, home in names.items() if name != home}


def tied(network: nn.Module, aliases: Mapping[str, str]) -> dict[str, str]:
    """Return the aliases that still are the tensor at their home."""
    return {
        alias: home
        for alias, home in aliases.items()
        if find(network, alias) is find(network, home) is not None
    }


def tie(network: nn.Module, aliases: Mapping[str, str]) -> None:
    """Make aliases the tensors at their homes again; torch may have made each of them two."""
    for alias, home in aliases.items():
        tensor = find(network, home)
        if isinstance(tensor, Tensor) and find(network, alias) is not tensor:
            owner, _, name = alias.rpartition(".")
            persistent = name not in network.get_submodule(owner)._non_persistent_buffers_set
            place(network, alias, tensor, persistent=persistent)


def drop_aliases(network: Any, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    """Leave further names out of a state dict, as a hook of a network with `_aliases`."""
    for alias in tied(network, network._aliases):
        state.pop(prefix + alias, None)


def fill_aliases(network: Any, state: dict[str, Tensor], prefix: str, *unused: Any) -> None:
    """Add further names to a state dict that is to be loaded, as a hook before that."""
    network._tied = tied(network, network._aliases)
    for alias, home in network._aliases.items():
        if prefix + home in state and find(network, alias) is not None:
            state.setdefault(prefix + alias, state[prefix + home])


def tie_aliases(network: Any, *unused: Any) -> None:
    """Tie again what was tied before a state dict was loaded, as a hook after that."""
    tie(network, network._tied)
