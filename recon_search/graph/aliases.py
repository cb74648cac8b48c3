"""Tensors that several modules of a network share: saved once, and one again after torch made two.

A module changed since, whose tensor is gone or of another kind, is left alone.
"""

from __future__ import annotations

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


def drop_aliases(network: Any, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    """Leave further names out of a state dict, as a hook of a network with `_aliases`."""
    for alias, home in network._aliases.items():
        if find(network, alias) is find(network, home):
            state.pop(prefix + alias, None)


def fill_aliases(network: Any, state: dict[str, Tensor], prefix: str, *unused: Any) -> None:
    """Add further names to a state dict that is to be loaded."""
    for alias, home in network._aliases.items():
        if prefix + home in state and find(network, alias) is not None:
            state.setdefault(prefix + alias, state[prefix + home])


def tie_aliases(network: Any, *unused: Any) -> None:
    """Make every alias the tensor that lives at its home again; torch may have made it two."""
    for alias, home in network._aliases.items():
        tensor, other = find(network, home), find(network, alias)
        is_changed = isinstance(tensor, nn.Parameter) != isinstance(other, nn.Parameter)
        if tensor is None or other is None or is_changed:
            continue  # since a module was changed
        if other is not tensor:
            owner, _, name = alias.rpartition(".")
            persistent = name not in network.get_submodule(owner)._non_persistent_buffers_set
            place(network, alias, tensor, persistent=persistent)
