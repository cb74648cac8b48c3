"""Lines of one pixel's width of borders that are wider."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def thin(mask: Mask) -> Mask:
    """Take pixels off a mask (H, W) until lines remain that hang together as it did.

    Guo and Hall's parallel thinning, as Lam, Lee and Suen describe it (IEEE PAMI 14(9), 1992, the
    first algorithm of section II.B.2).
    """
    found = np.pad(mask.astype(bool), 1)
    while True:
        before = found.sum()
        for is_second in (False, True):
            found[1:-1, 1:-1] &= ~_removable(found, is_second=is_second)
        if found.sum() == before:
            return found[1:-1, 1:-1]


def _removable(padded: Mask, *, is_second: bool) -> Mask:
    """Say which pixels a half of a round takes off."""
    height, width = padded.shape[0] - 2, padded.shape[1] - 2
    # x1 to x8: east, then against the clock
    steps = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))
    x = [
        padded[1 + down : 1 + down + height, 1 + right : 1 + right + width] for down, right in steps
    ]
    crossings = sum((~x[i] & (x[i + 1] | x[(i + 2) % 8])).astype(np.int8) for i in (0, 2, 4, 6))
    first = sum((x[i] | x[i + 1]).astype(np.int8) for i in (0, 2, 4, 6))
    second = sum((x[i + 1] | x[(i + 2) % 8]).astype(np.int8) for i in (0, 2, 4, 6))
    least = np.minimum(first, second)
    turned = x[4:] + x[:4] if is_second else x
    keeps = (turned[1] | turned[2] | ~turned[7]) & turned[0]
    found: Mask = (crossings == 1) & (least >= 2) & (least <= 3) & ~keeps
    return found
