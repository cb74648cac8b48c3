"""Example inputs of a backbone, for the forward passes that building a network takes.

An example is what the backbone is called with: its one input (a tensor, or a dict or list of
tensors), a tuple of its positional arguments, or a dict of its arguments by name.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from recon_search.chance import forked
from recon_search.errors import BackboneError
from recon_search.graph.tensors import with_tensors

Inputs = tuple[Any, ...]  # one entry a positional argument

COMMON_SIDES = (32, 64, 28, 96, 128, 160, 192, 224, 240, 256, 288, 299, 320, 384, 448, 512)


def as_inputs(module: nn.Module, example: Any) -> Inputs:
    """Return the positional arguments that `example` stands for; a batch of one becomes two.

    Raises:
        BackboneError: the example holds something else than tensors, or leaves an argument out.
    """
    if isinstance(example, Mapping) and set(example) & {*input_names(module)} == set(example):
        names = input_names(module, len(example))
        if set(names) != set(example):
            raise BackboneError(
                f"An example must name the first inputs of {type(module).__name__}, {names}, it "
                f"has {list(example)}. Name them all."
            )
        example = tuple(example[name] for name in names)
    inputs = example if isinstance(example, tuple) else (example,)
    leaves = pytree.tree_leaves(inputs)
    strange = [type(leaf).__name__ for leaf in leaves if not isinstance(leaf, Tensor)]
    if strange or not leaves:
        raise BackboneError(
            "An example must be a tensor, or a tuple, list or dict of tensors, got "
            f"{type(example).__name__}{f' with {strange[0]}' if strange else ' without any'}. Pass "
            "what the backbone is called with, and leave out what keeps its default."
        )
    input_names(module, len(inputs))
    if all(leaf.shape[:1] == (1,) for leaf in leaves):
        inputs = pytree.tree_map(lambda tensor: torch.cat([tensor, tensor]), inputs)
    return inputs


def one_of(inputs: Inputs) -> Inputs:
    """Return the first element of a batch, as a batch."""
    first: Inputs = pytree.tree_map(lambda tensor: tensor[:1], inputs)
    return first


def refused(module: nn.Module, inputs: Inputs, error: Exception) -> BackboneError:
    """Say that a backbone does not accept an example."""
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in pytree.tree_leaves(inputs))
    return BackboneError(
        f"A backbone must accept the example input, {type(module).__name__} refuses one of shape "
        f"{shapes} ({first_line(error)}). Pass example=."
    )


def first_line(error: Exception) -> str:
    """Name an exception and the first line of what it says, without torch's hints on logging."""
    text = str(error).strip().partition("\n")[0].partition(" For more information")[0]
    return f"{type(error).__name__}: {text[:300]}".rstrip(".: ")


def input_names(module: nn.Module, n: int | None = None) -> list[str]:
    """Return the names of the first `n` arguments of the forward pass; of all if None.

    Raises:
        BackboneError: it does not take as many.
    """
    known = [*inspect.signature(module.forward).parameters.values()]
    names = [p.name for p in known if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for parameter in known:
        if parameter.kind == parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}_{i}" for i in range((n or 1) - len(names))]
    if n is not None and n > len(names):
        raise BackboneError(
            f"An example must have the inputs of {type(module).__name__}, {names}, it has {n}. "
            "Pass a tuple of them."
        )
    return names[:n]


def needed_names(module: nn.Module) -> list[str]:
    """Return the names of the arguments that the forward pass cannot do without, at least one.

    Raises:
        BackboneError: there are several, which only an example shows.
    """
    known = inspect.signature(module.forward).parameters.values()
    required = [
        p for p in known if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    named = [p.name for p in required if p.kind == p.KEYWORD_ONLY]
    if named:
        raise BackboneError(
            f"A backbone's inputs must be positional, {type(module).__name__} takes {named[0]} by "
            "name alone. Remove the * from its forward pass."
        )
    needed = [p.name for p in required]
    if len(needed) > 1:
        raise BackboneError(
            f"A backbone with several inputs needs an example of them, {type(module).__name__} "
            f"takes {', '.join(needed)}. Pass example=({', '.join(needed)}), a tuple of tensors."
        )
    return needed or input_names(module, 1)


def example_input(module: nn.Module) -> Tensor:
    """Return two random inputs, always the same, of the size that `module` is configured for.

    Tried on a copy, in this order: an `img_size` of the model or of a part, such as the patch
    embedding; what timm's configuration says; common sizes. The channels are those of the first
    convolution, or fewer where it reads patches as channels. A module without convolutions and
    configuration gets vectors.

    Raises:
        BackboneError: the module has no weights to tell from, takes several inputs, or refuses all
            that was tried.
    """
    needed_names(module)
    first = next((p for p in module.parameters() if p.ndim >= 2 and p.is_floating_point()), None)
    if first is None:
        raise BackboneError(
            f"A backbone without weights needs an example input, {type(module).__name__} has none. "
            "Pass example=."
        )
    twin = with_tensors(module, {}).eval()
    reasons: list[tuple[tuple[int, ...], Exception]] = []
    for size in _sizes(module, first):
        generator = torch.Generator().manual_seed(0)  # the caller's random state stays as it is
        x = torch.randn(2, *size, generator=generator).to(first)
        try:
            with torch.no_grad(), forked():
                twin(x)
        except Exception as error:  # whatever a forward pass raises
            reasons.append((size, error))
        else:
            return x
    size, reason = reasons[0]
    raise BackboneError(
        f"A backbone needs an example input that it accepts, {type(module).__name__} refuses "
        f"(2, {', '.join(map(str, size))}) and {len(reasons) - 1} others ({first_line(reason)}). "
        "Pass example=."
    )


def _sizes(module: nn.Module, first: Tensor) -> Iterator[tuple[int, ...]]:
    """Yield likely sizes of one input, the likeliest first."""
    config = getattr(module, "default_cfg", None) or getattr(module, "pretrained_cfg", None) or {}
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    convolution = next((part for part in module.modules() if isinstance(part, kinds)), None)
    if convolution is None and not config:
        yield (first.shape[1],)
        return
    configured = tuple(config.get("input_size") or (3, 32, 32))
    n_axes = 2 if convolution is None else convolution.weight.ndim - 2
    channels = [configured[0]]
    if convolution is not None:
        patches = (convolution.in_channels / side**n_axes for side in (1, 2, 4, 8))
        channels = [*(int(n) for n in patches if n.is_integer()), configured[0]]
    chosen = [_pair(getattr(part, "img_size", None)) for part in module.modules()]
    images: Iterable[tuple[int, ...]] = [
        *(image for image in chosen if image),
        configured[1:],
        *((side, side) for side in COMMON_SIDES),
    ]
    if n_axes != 2:
        images = [(side,) * n_axes for side in COMMON_SIDES[:8]]
    pairs = ((n, *image) for image, n in itertools.product(images, channels))
    yield from dict.fromkeys(pairs)


def _pair(size: Any) -> tuple[int, ...] | None:
    """Read an `img_size` as timm's models keep it."""
    if isinstance(size, int) and not isinstance(size, bool):
        return (size, size)
    if isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(n, int) for n in size):
        return tuple(size)
    return None
