"""What timm's optimisers and helpers ask of a model, answered for a branched one."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from typing import Any

from timm.models import group_modules
from timm.models._manipulate import group_with_matcher
from timm.optim import auto_group_layers
from torch import nn

from recon_search.errors import SplitError
from recon_search.graph.tensors import find, first_names

LAST = float("inf")  # the group of timm's heads


def plain_name(path: str) -> str:
    """Return the timm name of what stands at a path below `shared` or `branches.<tasks>`."""
    tree, _, name = path.partition(".")
    name = name if tree == "shared" else name.partition(".")[2]
    return re.sub(r"\.parametrizations\.([^.]+)\..*", r".\1", name)  # what it is computed from


def undecayed(plain: nn.Module, network: nn.Module) -> set[str]:
    """Name the parameters of a branched network whose plain ones timm keeps from weight decay."""
    patterns: set[str] = getattr(plain, "no_weight_decay", set)()
    first = first_names(plain)
    found = set()
    for path, _ in network.named_parameters():
        name = plain_name(path)
        if any(fnmatch(first.get(name, name), pattern) for pattern in patterns):
            found.add(glob.escape(path))  # timm reads it as a pattern
    return found


def grouping(plain: nn.Module, network: nn.Module, *, coarse: bool) -> Callable[[str], float]:
    """Return what gives the group of layers that timm puts a plain tensor or module into.

    Groups are numbered in order; that of timm's classifier, with or without one, is `LAST`.
    """
    first = first_names(plain)
    heads = (getattr(plain, "pretrained_cfg", None) or {}).get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else heads
    groups: dict[str, float]
    if hasattr(plain, "group_matcher"):
        matcher = plain.group_matcher(coarse=coarse)  # type: ignore[operator]
        names = [name for name, _ in plain.named_parameters()]
        names += [plain_name(path) for path, _ in network.named_parameters()]
        names = list(dict.fromkeys(first.get(name, name) for name in names))
        groups = _numbered(list(group_modules(plain, matcher, reverse=True)), matcher, heads)
        groups |= _numbered(names, matcher, [f"{head}.weight" for head in heads])
    else:
        groups = auto_group_layers(plain)

    def group(path: str) -> float:
        name = plain_name(path)
        return groups.get(first.get(name, name), LAST)

    return group


def _numbered(names: Sequence[str], matcher: Any, heads: Sequence[str]) -> dict[str, float]:
    """Number the groups of `names`; the last is `LAST` if it would hold one of `heads`."""
    known = dict.fromkeys([*names, *heads])
    groups: dict[str, float] = group_with_matcher(iter(known.items()), matcher, reverse=True)
    last = max(groups.values())
    if not any(groups[head] == last for head in heads):
        return groups
    return {name: LAST if group == last else group for name, group in groups.items()}


def classifier(plain: nn.Module, network: nn.Module) -> nn.Module | tuple[nn.Module, ...]:
    """Return what all tasks have in the place of the plain model's classifier.

    Raises:
        SplitError: they have several.
    """
    found = plain.get_classifier()  # type: ignore[operator]
    if isinstance(found, tuple):
        return tuple(_counterpart(module, plain, network) for module in found)
    return _counterpart(found, plain, network)


def _counterpart(module: nn.Module, plain: nn.Module, network: nn.Module) -> nn.Module:
    name = next((name for name, other in plain.named_modules() if other is module), None)
    branches = network.get_submodule("branches")
    trees = ["shared", *(f"branches.{tasks}" for tasks, _ in branches.named_children())]
    found = [find(network, f"{tree}.{name}") for tree in trees]
    copies = [copy for copy in found if isinstance(copy, nn.Module)]
    if len(copies) > 1:
        raise SplitError(
            f"A network must have one classifier to give it, '{name}' has {len(copies)} copies. "
            "Ask single(task) for one task's."
        )
    return copies[0] if copies else module
