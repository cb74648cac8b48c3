"""`multi-digits`: pairs of scikit-learn's 1,797 real 8x8 digits. Needs no network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from recon_search.data.compose import Composed, Pool, Pools, check_room, divide
from recon_search.data.source import PARTS, PartName, Schema
from recon_search.tasks.classes import Classes

ITEM_SHARE = 2 / 3
"""Side of an item as a share of the canvas: 16 on 24, so that the items overlap by a third."""

N_DIGITS = 1797
"""Of scikit-learn."""

AT_ONCE = 64
"""Digits that are enlarged at a time."""

TASKS = (Classes("left", 10), Classes("right", 10))


def multi_digits(sizes: Mapping[PartName, int], canvas: int, seed: int) -> Composed:
    """Pairs of digits from disjoint pools: 60 % of the digits for train, 20 %, 20 %.

    Args:
        sizes: pairs of each part.
        canvas: side of the canvas; digits are enlarged to two thirds of it.
        seed: seed of the pools and of the pairs.
    """
    schema = Schema(TASKS, (1, canvas, canvas), frozenset(task.name for task in TASKS))

    side = round(canvas * ITEM_SHARE)
    check_room({**sizes, "train": sizes["train"] + N_DIGITS}, schema.shape, canvas**2)

    def read() -> Pools:
        pools = divide(read_digits(side), (0.6, 0.2, 0.2), seed)
        return {name: (pool, pool) for name, pool in zip(PARTS, pools, strict=True)}

    return Composed(schema, sizes, seed, read)


def read_digits(side: int) -> Pool:
    """Return all digits, enlarged to a side."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float()[:, None] * (255 / 16)
    pixels = np.empty((len(images), side, side), np.uint8)
    for first in range(0, len(images), AT_ONCE):  # as floats all of them may not fit into memory
        some = slice(first, first + AT_ONCE)
        enlarged = torch.nn.functional.interpolate(
            images[some], size=(side, side), mode="bilinear", align_corners=False
        )
        pixels[some] = enlarged[:, 0].round().clamp(0, 255).byte().numpy()
    return Pool(pixels, bunch.target.astype(np.int64))
