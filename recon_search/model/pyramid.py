"""The pyramid of maps that a backbone gives for images: how wide, how large, how aligned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from recon_search.errors import BackboneError, in_one_line
from recon_search.graph.calls import Call
from recon_search.graph.tensors import named_tensors, on_meta, with_tensors


@dataclass(frozen=True)
class Pyramid:
    """What heads read that predict for every pixel.

    A map of reduction r has a cell for every r x r pixels, counted from the upper left corner; the
    last of a row or column may hang over.

    Attributes:
        channels: of each map.
        reductions: of each map.
        multiple: of what the sides of images must be; those of others are padded with zeros at
            the right and below, and what is predicted there is cut off.
    """

    channels: tuple[int, ...]
    reductions: tuple[int, ...]
    multiple: int = 1

    def fit(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape (C, H, W) that an image has when it is padded."""
        sides = (-(-side // self.multiple) * self.multiple for side in shape[1:])
        return (shape[0], *sides)

    def at(self, indices: Sequence[int]) -> Pyramid:
        """Return the pyramid that some of the maps make."""
        channels, reductions = self.channels, self.reductions
        return replace(
            self,
            channels=tuple(channels[i] for i in indices),
            reductions=tuple(reductions[i] for i in indices),
        )


def pad(images: Tensor, multiple: int) -> Tensor:
    """Pad images (B, C, H, W) with zeros to sides that are multiples of a number."""
    height, width = (-side % multiple for side in images.shape[-2:])
    return functional.pad(images, (0, width, 0, height)) if height or width else images


def reductions_of(backbone: nn.Module) -> tuple[list[int], list[int]]:
    """Return channels and reductions of all features that a timm model says it has.

    Raises:
        BackboneError: it says nothing.
    """
    info: Any = getattr(backbone, "feature_info", None)
    rows = getattr(info, "info", info)
    try:
        return [int(row["num_chs"]) for row in rows], [int(row["reduction"]) for row in rows]
    except (KeyError, TypeError):
        raise BackboneError(
            "Tasks that read a pyramid need a backbone whose feature_info gives channels and "
            f"reductions, that of {type(backbone).__name__} does not. Choose another backbone."
        ) from None


def find_pyramid(backbone: nn.Module, name: str, shape: Sequence[int]) -> Pyramid:
    """Find out what pyramid all features of a backbone make, by forward passes without values.

    Args:
        backbone: left untouched.
        name: of the backbone, for messages.
        shape: of one image, (C, H, W).

    Raises:
        BackboneError: images are not accepted even when they are padded, or the maps are no grid
            over the image, as where convolutions leave its border out.
    """
    channels, reductions = reductions_of(backbone)
    stand_in = with_tensors(
        backbone, {n: on_meta(tensor) for n, tensor in named_tensors(backbone).items()}
    ).eval()
    call = Call("pyramid", tuple(range(len(channels))))
    reasons = []
    for multiple in (1, max(reductions)):
        found = Pyramid(tuple(channels), tuple(reductions), multiple)
        image = found.fit(shape)
        try:
            with torch.no_grad(), torch.device("meta"):
                maps = call.apply(stand_in, torch.empty(2, *image))
        except Exception as error:  # whatever a model stumbles over
            reasons.append(in_one_line(error))
            continue
        sizes = [tuple(each.shape[1:]) for each in maps]
        grids = zip(channels, reductions, strict=True)
        if sizes == [(c, *(-(-side // r) for side in image[1:])) for c, r in grids]:
            return found
        reasons.append(f"maps of {sizes} for reductions of {list(found.reductions)}")
    raise BackboneError(
        f"Tasks that read a pyramid need maps that lie over the whole image, of which {name} gives "
        f"none for images of {tuple(shape[1:])}: {reasons[0]}"
        + (f"; padded to {image[1:]}: {reasons[1]}" if image[1:] != tuple(shape[1:]) else "")
        + ". Set backbone.args.img_size to the padded size where it has one, or choose another "
        "backbone."
    )
