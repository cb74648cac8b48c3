"""Which modules can be taken apart: the private copy that is traced, or why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune
from torch.utils import _pytree as pytree

from recon_search.chance import forked
from recon_search.errors import BackboneError
from recon_search.graph.example import Inputs, first_line, refused
from recon_search.graph.tensors import is_writable, named_tensors, with_tensors

_SHARDING = "torch.distributed.fsdp"


def copy_of(module: nn.Module) -> nn.Module:
    """Return a deep copy of a backbone.

    Raises:
        BackboneError: it hides its layers (compiled, scripted, wrapped, pruned), cannot be copied,
            or has names that no code can write.
    """
    _check_eager(module)
    try:
        copy = with_tensors(module, {})
        for tensor in named_tensors(copy).values():
            _ = tensor.shape  # lazy ones have none
    except Exception as error:  # whatever deepcopy raises
        raise BackboneError(
            f"A backbone must be copyable and initialised, {type(module).__name__} is not "
            f"({first_line(error)}). Run lazy modules once, "
            "and use torch.nn.utils.parametrizations for normed weights."
        ) from error
    for part in {part for name, _ in copy.named_modules() for part in name.split(".")}:
        if not is_writable(part):
            raise BackboneError(
                "The names of a backbone's modules must be free of Python keywords, quotes and "
                f"backslashes, {type(module).__name__} has {part!r}. Rename the module."
            )
    return copy


def _check_eager(module: nn.Module) -> None:
    if not isinstance(module, nn.Module):
        raise BackboneError(
            f"A backbone must be a torch.nn.Module, got {type(module).__name__}. Pass the module "
            "itself."
        )
    for name, part in module.named_modules():
        what = f"its module '{name}'" if name else "this one"
        path = f"backbone.{name}" if name else "backbone"
        if hasattr(part, "_orig_mod"):
            found, then = "compiled", _instead(name, "_orig_mod")
        elif isinstance(part, torch.jit.ScriptModule):
            found, then = "a TorchScript program", "Pass the eager module that it was made from"
        elif is_wrapper(part):
            found, then = f"wrapped in {type(part).__name__}", _instead(name, "module")
        elif is_sharded(part):
            found, then = "sharded by FSDP", "Call this before fully_shard"
        elif callable(getattr(part, "layer_parameters", None)):
            found, then = "branched already", _plain_of(name, part)
        elif pruned := [h._tensor_name for h in _pruning(part)]:
            found = f"pruned ('{pruned[0]}')"
            then = f"Call torch.nn.utils.prune.remove({path}, '{pruned[0]}') first"
        else:
            continue
        raise BackboneError(
            f"A backbone must be a plain module with its weights in place, {what} is {found}. "
            f"{then}."
        )


def _plain_of(name: str, branched: nn.Module) -> str:
    path = f"backbone.{name}" if name else "backbone"
    if not hasattr(branched, "single"):  # a model with heads
        path += ".backbone"
    return f"Pass {path}.single(task), the plain network of one task; layers and branch take {path}"


def _instead(name: str, inner: str) -> str:
    if not name:
        return f"Pass its .{inner}"
    return f"Put backbone.{name}.{inner} in its place"


def is_wrapper(part: nn.Module) -> bool:
    """Whether a module is torch's for data-parallel training, around the user's `module`."""
    return _is_of(part, "torch.nn.parallel", _SHARDING) and hasattr(part, "module")


def is_sharded(part: nn.Module) -> bool:
    """Whether `fully_shard` has cut a module's parameters into the processes' shares."""
    return _is_of(part, _SHARDING) and not hasattr(part, "module")


def _is_of(part: nn.Module, *packages: str) -> bool:
    return any(base.__module__.startswith(packages) for base in type(part).__mro__)


def _pruning(part: nn.Module) -> list[Any]:
    hooks = part._forward_pre_hooks.values()
    return [hook for hook in hooks if isinstance(hook, prune.BasePruningMethod)]


def check_hooks(
    root: nn.Module, is_leaf: Callable[[nn.Module, str], bool], example: Callable[[], Inputs]
) -> bool:
    """Make sure that the hooks on modules that tracing takes apart are part of what they compute.

    A hook that changes what its module takes or gives is traced like the rest. One that only looks
    on would see the graph's stand-ins while tracing, and nothing afterwards. Hooks on modules that
    stay whole (those of torch.nn) run as before.

    Args:
        root: run once where a hook must be tried, in evaluation mode.
        is_leaf: tells which modules stay whole, by module and name.
        example: makes the positional arguments of that run.

    Returns:
        whether there are such hooks.

    Raises:
        BackboneError: a hook only looks on, or is for the backward pass.
    """
    hooked = [(n, p) for n, p in _followed(root, "", is_leaf) if _is_hooked(p)]
    for name, part in hooked:
        if part._backward_hooks or part._backward_pre_hooks:
            raise _refusal(root, name, "is for the backward pass")
    if not hooked:
        return False
    inputs = example()
    for name, part in hooked:
        for hooks in (part._forward_hooks, part._forward_pre_hooks):
            hooks.update((key, _guard(hook, root, name)) for key, hook in hooks.items())
    flags = {part: part.training for part in root.modules()}
    try:
        with torch.no_grad(), forked():
            root.eval()(*inputs)
    except BackboneError:
        raise
    except Exception as error:  # whatever the forward pass raises
        raise refused(root, inputs, error) from error
    finally:
        for part, flag in flags.items():
            part.training = flag
        for _, part in hooked:
            for hooks in (part._forward_hooks, part._forward_pre_hooks):
                hooks.update((key, vars(hook)["hook"]) for key, hook in hooks.items())
    return True


def _refusal(root: nn.Module, name: str, why: str) -> BackboneError:
    where = f"module '{name}'" if name else "the backbone itself"
    return BackboneError(
        "A hook on a module that is taken apart must change what the module takes or gives, one on "
        f"{where} of {type(root).__name__} {why}. Remove it before branching, and hook modules of "
        "torch.nn, which stay whole, or read the features from the outputs."
    )


def _followed(
    part: nn.Module, name: str, is_leaf: Callable[[nn.Module, str], bool]
) -> Iterator[tuple[str, nn.Module]]:
    """Yield a module that is taken apart and all those inside it."""
    yield name, part
    for child, inner in part.named_children():
        path = f"{name}.{child}" if name else child
        if not is_leaf(inner, path):
            yield from _followed(inner, path, is_leaf)


def _is_hooked(part: nn.Module) -> bool:
    hooks = (
        part._forward_hooks,
        part._forward_pre_hooks,
        part._backward_hooks,
        part._backward_pre_hooks,
    )
    return any(hooks)


def _guard(hook: Callable[..., Any], root: nn.Module, name: str) -> Any:
    """Wrap a forward hook so that it is refused where it returns nothing new."""

    def guarded(*given: Any) -> Any:
        result = hook(*given)
        if result is None or any(_leaves(result) == _leaves(value) for value in given[1:]):
            raise _refusal(root, name, "only looks on")
        return result

    guarded.hook = hook  # type: ignore[attr-defined]
    return guarded


def _leaves(value: Any) -> list[int]:
    return [id(leaf) for leaf in pytree.tree_leaves(value)]
