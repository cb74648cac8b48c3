"""Modules changed after branching (frozen, pruned, parametrised, wrapped): what they hold now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from recon_search.graph.layout import Layout
from recon_search.graph.tensors import find, first_names, named_tensors


def readers(
    layout: Layout, graphs: Mapping[bool, fx.Graph], plain: nn.Module
) -> dict[str, list[tuple[str, str]]]:
    """Find where graphs read each tensor of a plain backbone, by first name.

    Returns:
        pairs of a module that is called and the tensor's name in it, or of "" and the tensor's
        name where it is read by itself.
    """
    first = first_names(plain)
    found: dict[str, list[tuple[str, str]]] = {name: [] for name in first.values()}
    for target in layout.modules:
        for name in named_tensors(plain.get_submodule(target)):
            found[first[f"{target}.{name}"]].append((target, name))
    bare = {str(n.target): n for graph in graphs.values() for n in graph.find_nodes(op="get_attr")}
    for name in bare:
        if name in first:
            found[first[name]].append(("", first[name]))
    return found


def value(tree: nn.Module, path: str) -> Tensor | None:
    """Return the tensor that a module keeps under a name, or computes from others, or None."""
    kept = find(tree, path)
    if isinstance(kept, Tensor):
        return kept
    parent, _, name = path.rpartition(".")
    owner = find(tree, parent)
    if not isinstance(owner, nn.Module):
        return None
    with torch.no_grad():
        if parametrize.is_parametrized(owner, name):
            return _parametrized(owner, name)
        for hook in owner._forward_pre_hooks.values():  # the attribute is that of the last call
            found: Tensor
            if isinstance(hook, BasePruningMethod) and hook._tensor_name == name:
                found = hook.apply_mask(owner)  # type: ignore[no-untyped-call]
            elif isinstance(hook, WeightNorm) and hook.name == name:
                found = hook.compute_weight(owner)
            elif isinstance(hook, SpectralNorm) and hook.name == name:
                found = hook.compute_weight(owner, do_power_iteration=False)
            else:
                continue
            return found
    return None


def trained(tree: nn.Module, path: str, before: nn.Module | None) -> list[nn.Parameter]:
    """Return the parameters that stand for the tensor at a path.

    Args:
        tree: holds them.
        path: of the tensor.
        before: the module that had the tensor, or None where no module is called with it. Of one
            in its place all parameters count.
    """
    parent, _, name = path.rpartition(".")
    owner = find(tree, parent)
    while owner is None:
        parent = parent.rpartition(".")[0]
        owner = find(tree, parent)
    assert isinstance(owner, nn.Module)
    if before is not None and next(replaced(owner, before), None) is not None:
        return list(owner.parameters())
    kept = find(owner, name)
    if isinstance(kept, nn.Parameter):
        return [kept]
    made_from = (f"parametrizations.{name}.", f"{name}_")
    return [p for n, p in owner.named_parameters() if n.startswith(made_from)]


def replaced(now: nn.Module, before: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of another class than before, by their path from `now`.

    Parametrised ones keep their class, and synchronised norms compute what others do.
    """
    classes = map(parametrize.type_before_parametrizations, (now, before))
    if len({*classes}) > 1 and not isinstance(now, nn.SyncBatchNorm):
        yield "", now
        return
    for name, child in before.named_children():
        if name in now._modules:
            for path, module in replaced(now.get_submodule(name), child):
                yield f"{name}.{path}".rstrip("."), module


def stranger(now: nn.Module, before: nn.Module) -> tuple[str, nn.Module] | None:
    """Return a tensor, by its path from `now`, that a replacing module has and none had before."""
    for path, module in replaced(now, before):
        known = named_tensors(before.get_submodule(path))
        for name in named_tensors(module):
            if name not in known:
                return f"{path}.{name}".lstrip("."), module
    return None


def _parametrized(owner: nn.Module, name: str) -> Tensor:
    """Compute a parametrised tensor without moving what its parametrisations keep."""
    parts = list(owner.get_submodule(f"parametrizations.{name}").modules())
    flags = [part.training for part in parts]
    for part in parts:
        part.training = False
    try:
        found: Tensor = getattr(owner, name)
        return found
    finally:
        for part, flag in zip(parts, flags, strict=True):
            part.training = flag
