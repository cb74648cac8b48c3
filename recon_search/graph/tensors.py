"""Parameters and buffers of a module by name, and copies of a module that hold given tensors.

A tensor that several modules share (tied weights) has several names; the first one, in the order of
`named_parameters` and then `named_buffers`, stands for it.
"""

from __future__ import annotations

import copy
import itertools
import keyword
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and buffer of `module` under each of its names."""
    return dict(
        itertools.chain(
            module.named_parameters(remove_duplicate=False),
            module.named_buffers(remove_duplicate=False),
        )
    )


def first_names(module: nn.Module) -> dict[str, str]:
    """Return, for each name of a tensor of `module`, the tensor's first name."""
    first: dict[int, str] = {}
    return {
        name: first.setdefault(id(tensor), name) for name, tensor in named_tensors(module).items()
    }


def fresh(tensor: Tensor) -> Tensor:
    """Return an independent copy: a parameter of a parameter, a plain tensor of a buffer."""
    value = tensor.detach().clone()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(value, requires_grad=tensor.requires_grad)
    return value


def on_meta(tensor: Tensor) -> Tensor:
    """Return a stand-in with the shape, type and flags of `tensor` that takes no memory."""
    value = tensor.detach().to("meta")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(value, requires_grad=tensor.requires_grad)
    return value


def with_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return a deep copy of `module` that holds exactly the given tensor objects.

    Args:
        module: left untouched.
        tensors: by any of the tensor's names in `module`. A tensor not named is deep-copied.

    Returns:
        a copy with empty caches (see `caches`).
    """
    own = named_tensors(module)
    memo: dict[int, Any] = {id(own[name]): tensor for name, tensor in tensors.items()}
    memo.update((id(cache), {}) for cache in caches(module))
    return copy.deepcopy(module, memo)


def caches(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Yield the attention biases that some timm modules keep outside their registries.

    levit, tiny_vit, efficientformer, efficientformer_v2 and efficientvit_msra keep gathered biases
    in a plain dict while they evaluate; they go stale when weights change.
    """
    for part in module.modules():
        cache = getattr(part, "attention_bias_cache", None)
        if isinstance(cache, dict):
            yield cache


def clear_caches(module: nn.Module) -> None:
    """Empty the caches of `module`."""
    for cache in caches(module):
        cache.clear()


def place(
    tree: nn.Module, path: str, value: nn.Module | Tensor, *, persistent: bool = True
) -> None:
    """Register a module, parameter or buffer at a dotted `path`.

    What is missing on the way becomes an empty module of the tree's class.
    """
    container = type(tree)
    *parents, name = path.split(".")
    for parent in parents:
        if parent not in tree._modules:
            tree.add_module(parent, container())
        tree = tree.get_submodule(parent)
    if isinstance(value, nn.Module):
        tree.add_module(name, value)
    elif isinstance(value, nn.Parameter):
        tree.register_parameter(name, value)
    else:
        tree.register_buffer(name, value, persistent=persistent)


def find(tree: nn.Module, path: str) -> nn.Module | Tensor | None:
    """Return what is registered at a dotted `path`, or None."""
    parent, _, name = path.rpartition(".")
    try:
        owner = tree.get_submodule(parent)
    except AttributeError:
        return None
    for registry in (owner._modules, owner._parameters, owner._buffers):
        if name in registry:
            return registry[name]
    return None


def is_writable(name: str) -> bool:
    """Tell whether generated code can name an attribute so."""
    return (
        name.isprintable()
        and not keyword.iskeyword(name)
        and not set('"\\.') & set(name)
        and unicodedata.normalize("NFKC", name) == name  # as Python reads identifiers
    )
