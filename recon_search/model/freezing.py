"""Parts of a backbone that are not trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from recon_search.errors import RecipeError, nearest


def freeze(backbone: nn.Module, patterns: Sequence[str]) -> None:
    """Take the gradients of what patterns name, in place.

    Args:
        backbone: a plain one.
        patterns: as for `fnmatch`, whose `*` takes dots too, of names of parameters or of modules,
            which stand for all that is in them.

    Raises:
        RecipeError: a pattern names nothing, or nothing is left to train.
    """
    if not patterns:
        return
    parameters = dict(backbone.named_parameters(remove_duplicate=False))
    modules = {name: [*m.parameters(), *m.buffers()] for name, m in backbone.named_modules()}
    names = [name for name, tensors in modules.items() if name and tensors]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in (*names, *parameters)):
            raise RecipeError(
                f"`train.freeze` must name modules or parameters of the backbone, '{pattern}' is "
                f"none of {type(backbone).__name__}.{nearest(pattern, [*names, *parameters])} "
                'Write it as in "layer1.*"; heads are always trained.'
            )
    for name, parameter in parameters.items():
        if _is_named(name, patterns):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise RecipeError(
            f"`train.freeze` must leave a part of the backbone to train, got {list(patterns)}: "
            f"with nothing of {type(backbone).__name__} trained, tasks have nothing to share. "
            "Freeze less."
        )


def frozen_norms(backbone: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Name the norms whose statistics stay as they are: those with nothing left to train.

    Args:
        backbone: in which `freeze` has taken the gradients.
        patterns: that it took.
    """
    return [
        name
        for name, module in backbone.named_modules()
        if patterns and isinstance(module, _NormBase) and _is_frozen(name, module, patterns)
    ]


def copies(network: nn.Module, names: Sequence[str]) -> Iterator[str]:
    """Yield where a branched backbone has the modules that are called so in the plain one."""
    branches = network.get_submodule("branches")
    trees = ["shared", *(f"branches.{tasks}" for tasks, _ in branches.named_children())]
    for tree in trees:
        known = dict(network.get_submodule(tree).named_modules(remove_duplicate=False))
        yield from (f"{tree}.{name}" for name in names if name in known)


def _is_frozen(name: str, norm: nn.Module, patterns: Sequence[str]) -> bool:
    own = list(norm.parameters())
    if own:
        return not any(parameter.requires_grad for parameter in own)
    return _is_named(name, patterns)


def _is_named(name: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern names a module or parameter, or a module that it is in."""
    parts = name.split(".")
    inside = [".".join(parts[: n + 1]) for n in range(len(parts))]
    return any(fnmatchcase(each, pattern) for each in inside for pattern in patterns)
