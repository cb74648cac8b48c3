"""Maps that a network gave, brought back to the image that it was shown in its own size."""

from __future__ import annotations

import torch
from torch import Tensor

from recon_search.data.transforms import Preparation

UNSEEN = -1
"""The class of pixels that the network was not shown; of numbers it is nan."""


def restore(found: Tensor, preparation: Preparation, size: tuple[int, int]) -> Tensor:
    """Undo `Preparation.bring` on a map.

    Whole numbers, which are classes, are taken from the nearest pixel; others are interpolated
    bilinearly, as `torch.nn.functional.interpolate` does without aligned corners. What was cut off
    is unknown.

    Args:
        found: (..., h, w), of the network's size.
        preparation: how the image was brought to that size.
        size: (H, W) of the image.

    Returns:
        (..., H, W); classes are int16 and `UNSEEN` where the network saw nothing, others nan.
    """
    scaled = preparation.scaled(*size)
    # as torchvision's center_crop rounds
    corner = [round((side - cut) / 2) for side, cut in zip(scaled, preparation.size, strict=True)]
    rows, columns = (
        (torch.arange(own, dtype=torch.float64) + 0.5) * side / own - start
        for own, side, start in zip(size, scaled, corner, strict=True)
    )
    height, width = found.shape[-2:]
    seen = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    if found.is_floating_point():
        across = _interpolate(found, columns)
        whole = _interpolate(across.transpose(-1, -2), rows).transpose(-1, -2)
        return torch.where(seen, whole, torch.nan)
    row, column = rows.long().clamp(0, height - 1), columns.long().clamp(0, width - 1)
    return torch.where(seen, found[..., row[:, None], column].to(torch.int16), UNSEEN)


def _interpolate(found: Tensor, places: Tensor) -> Tensor:
    """Interpolate along the last dimension, in pixels from its beginning; its ends go on."""
    last = found.shape[-1] - 1
    middle = (places - 0.5).clamp(0, last)
    low = middle.long()
    share = (middle - low).to(found.dtype)
    return torch.lerp(found[..., low], found[..., (low + 1).clamp(max=last)], share)
