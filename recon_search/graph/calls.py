"""What of a timm model is followed: its forward pass, its pyramid of maps, or both in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from recon_search.chance import forked
from recon_search.errors import BackboneError
from recon_search.graph.example import first_line

Reads = Literal["vector", "pyramid"]

N_EVEN = 4
"""How many maps of a model that keeps one size, such as a ViT."""


@dataclass(frozen=True)
class Call:
    """What is called of a module.

    Attributes:
        kind: `forward`, as the module is called; `pyramid`, the list of maps that timm's
            `forward_intermediates` gives; `both`, a pair of what the two give, in one pass.
        indices: which of timm's intermediate features make the pyramid, in timm's order.
    """

    kind: Literal["forward", "pyramid", "both"] = "forward"
    indices: tuple[int, ...] = ()

    def apply(self, root: nn.Module, x: Any) -> Any:
        """Compute it: what `root(x)` gives, a list of maps, or a pair of them."""
        own: Any = root
        if self.kind == "forward":
            return own(x)
        what: dict[str, Any] = {"indices": list(self.indices), "output_fmt": "NCHW"}
        if self.kind == "pyramid":
            # Layers behind the last map are not run, so what they update stays as it is.
            what |= {"intermediates_only": True, "stop_early": True}
            return list(own.forward_intermediates(x, **what))
        what |= {"intermediates_only": False, "stop_early": False}
        last, maps = own.forward_intermediates(x, **what)
        return own.forward_head(last), list(maps)

    def of(self, reads: Reads) -> Call:
        """Return what gives the part of it that is read."""
        return Call("pyramid", self.indices) if reads == "pyramid" else Call()

    @contextmanager
    def made_of(self, root: nn.Module) -> Iterator[None]:
        """Make this call what `root(x)` computes inside the block."""
        if self.kind == "forward":
            yield
            return

        def forward(x: Any) -> Any:
            return self.apply(root, x)

        vars(root)["forward"] = forward
        try:
            yield
        finally:
            vars(root).pop("forward", None)


FORWARD = Call()


def kind_of(reads: Sequence[Reads]) -> str:
    """Return the kind of call that gives what tasks read."""
    for each in reads:
        if each not in ("vector", "pyramid"):
            raise BackboneError(f"A task must read a vector or a pyramid, got {each!r}. Name one.")
    found = {*reads}
    return "both" if len(found) > 1 else "pyramid" if "pyramid" in found else "forward"


def find_call(
    root: nn.Module, kind: str, levels: Sequence[int] | None, inputs: tuple[Any, ...]
) -> Call:
    """Find out which of a model's intermediate features make its pyramid.

    Without `levels` these are the last feature of each size and, of a model whose features have
    one size, `N_EVEN` at even distances, the last among them.

    Args:
        root: run once in evaluation mode.
        kind: see `Call`.
        levels: indices of timm's `forward_intermediates`, negative ones from the end.
        inputs: positional arguments that the model accepts.

    Raises:
        BackboneError: it has no such features, or they are no maps.
    """
    title = type(root).__name__
    if kind not in ("forward", "pyramid", "both"):
        raise BackboneError(
            f"What is followed must be forward, pyramid or both, got {kind!r}. Name one."
        )
    if kind == "forward":
        return Call()
    if not callable(getattr(root, "forward_intermediates", None)):
        raise BackboneError(
            f"A pyramid is what timm's forward_intermediates gives, {title} has none. Choose "
            "another backbone, or tasks that read a vector."
        )
    if len(inputs) != 1:
        raise BackboneError(
            f"A pyramid is made of one input, {title} was given {len(inputs)}. Give the image."
        )
    shapes = _shapes(root, inputs)
    if levels is not None:
        indices = [index + len(shapes) if index < 0 else index for index in levels]
        is_known = indices and indices[0] >= 0 and indices[-1] < len(shapes)
        if not is_known or sorted({*indices}) != indices:
            raise BackboneError(
                f"Levels (`backbone.levels`) must be among the {len(shapes)} intermediate features "
                f"of {title}, each once and in order, got {list(levels)}. Count from 0, or from -1 "
                "for the last."
            )
        return Call(kind, tuple(indices))  # type: ignore[arg-type]
    sizes = [shape[2:] for shape in shapes]
    if len(set(sizes)) == 1:
        n = len(sizes)
        indices = sorted({(i + 1) * n // N_EVEN - 1 for i in range(N_EVEN)} - {-1})
    else:
        indices = sorted({size: index for index, size in enumerate(sizes)}.values())
    return Call(kind, tuple(indices))  # type: ignore[arg-type]


def _shapes(root: nn.Module, inputs: tuple[Any, ...]) -> list[tuple[int, ...]]:
    """Shapes of all intermediate features, by a forward pass that leaves no trace."""
    own: Any = root
    flags = {part: part.training for part in root.modules()}
    try:
        with torch.no_grad(), forked():
            root.eval()
            maps = own.forward_intermediates(*inputs, output_fmt="NCHW", intermediates_only=True)
        shapes = [tuple(each.shape) for each in maps]
    except Exception as error:  # whatever the forward pass raises
        raise BackboneError(
            f"A pyramid is what timm's forward_intermediates gives, that of {type(root).__name__} "
            f"fails ({first_line(error)}). Choose another backbone, or tasks that read a vector."
        ) from error
    finally:
        for part, flag in flags.items():
            part.training = flag
    if not shapes or any(len(shape) != 4 for shape in shapes):
        raise BackboneError(
            f"The features of a pyramid must be maps (B, C, H, W), {type(root).__name__} gives "
            f"{[len(shape) for shape in shapes]} dimensions. Choose another backbone."
        )
    return shapes
