"""Two items on one canvas, one task each: the Multi-MNIST construction.

The first item stands top left, the second bottom right; where they overlap the brighter pixel
wins. Items of the three parts come from disjoint pools.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from recon_search.data.dataset import MultiTaskData, Part


@dataclass(frozen=True)
class Pool:
    """Single items: uint8 images (N, side, side) and their classes (N,)."""

    images: NDArray[np.uint8]
    classes: NDArray[np.int64]

    def take(self, indices: NDArray[np.int64]) -> Pool:
        """Select items."""
        return Pool(self.images[indices], self.classes[indices])


def divide(pool: Pool, fractions: tuple[float, ...], seed: int) -> list[Pool]:
    """Cut a shuffled pool into disjoint pools of the given fractions; the last takes the rest."""
    order = np.random.default_rng(seed).permutation(len(pool.classes))
    cuts = np.round(np.cumsum(fractions[:-1]) * len(order)).astype(int)
    return [pool.take(part) for part in np.split(order, cuts)]


def compose(
    pools: Mapping[str, tuple[Pool, Pool]],
    sizes: Mapping[str, int],
    canvas: int,
    seed: int,
    tasks: tuple[str, str],
) -> MultiTaskData:
    """Compose the three parts of a two-task data set.

    Args:
        pools: for `train`, `validation` and `test` the pools of the first and the second item.
        sizes: how many pairs each part has.
        canvas: side of the square canvas, at least the side of an item.
        seed: same seed, same bytes.
        tasks: names of the two tasks.
    """
    parts = {
        name: _compose_part(pools[name], sizes[name], canvas, [seed, index], tasks)
        for index, name in enumerate(("train", "validation", "test"))
    }
    n_classes = {
        task: 1 + max(int(pair[place].classes.max()) for pair in pools.values())
        for place, task in enumerate(tasks)
    }
    return MultiTaskData(n_classes, **parts)


def _compose_part(
    pair: tuple[Pool, Pool], size: int, canvas: int, seed: list[int], tasks: tuple[str, str]
) -> Part:
    rng = np.random.default_rng(seed)
    images = np.zeros((size, canvas, canvas), dtype=np.uint8)
    targets, items = {}, {}
    for place, (task, pool) in enumerate(zip(tasks, pair, strict=True)):
        # Every item is used equally often, up to one: whole permutations, one after another.
        rounds = -(-size // len(pool.classes))
        order = np.concatenate([rng.permutation(len(pool.classes)) for _ in range(rounds)])[:size]
        side = pool.images.shape[1]
        corner = slice(0, side) if place == 0 else slice(canvas - side, canvas)
        window = images[:, corner, corner]
        np.maximum(window, pool.images[order], out=window)
        targets[task] = torch.from_numpy(pool.classes[order])
        items[task] = torch.from_numpy(order)
    return Part(torch.from_numpy(images)[:, None], targets, items)
