"""Items on one canvas, one task each: the Multi-MNIST construction.

The first item stands top left, the second bottom right; where they overlap the brighter pixel
wins. Items of the three parts come from disjoint pools.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from recon_search.data.resident import Part, ResidentFeed
from recon_search.data.source import PARTS, PartName, Say, Schema, silent
from recon_search.errors import DataError
from recon_search.memory import in_gigabytes, total_memory


@dataclass(frozen=True)
class Pool:
    """Single items: uint8 images (N, side, side) and their classes (N,)."""

    images: NDArray[np.uint8]
    classes: NDArray[np.int64]

    def take(self, indices: NDArray[np.int64]) -> Pool:
        """Select items."""
        return Pool(self.images[indices], self.classes[indices])


CORNERS = ((0, 0), (1, 1), (0, 1), (1, 0))
"""Where items stand, in their order: down and to the right."""

Pools = Mapping[PartName, tuple[Pool, Pool]]
"""By part, the pools of the first and of the second item."""


@dataclass(frozen=True)
class Composed:
    """A two-task data set composed of items.

    Attributes:
        schema: its tasks, one an item, and the canvas.
        sizes: how many pairs each part has.
        seed: of the pools and of the pairs; same seed, same bytes.
        read: reads the pools.
    """

    schema: Schema
    sizes: Mapping[PartName, int]
    seed: int
    read: Callable[[], Pools]

    def __post_init__(self) -> None:
        check_room(self.sizes, self.schema.shape, math.prod(self.schema.shape))

    def open(self, device: torch.device, say: Say = silent) -> ResidentFeed:
        """Compose all pairs and move them to a device."""
        pools = self.read()
        return ResidentFeed(
            self.schema,
            {
                name: compose(
                    pools[name],
                    self.sizes[name],
                    self.schema.shape[1],
                    [self.seed, index],
                    self.schema.names,
                ).to(device)
                for index, name in enumerate(PARTS)
            },
        )


def check_room(sizes: Mapping[PartName, int], shape: tuple[int, ...], n_bytes: int) -> None:
    """Refuse data that does not fit into memory, before any is made.

    Args:
        sizes: how many samples each part has.
        shape: of an image.
        n_bytes: of a sample.

    Raises:
        DataError: it does not fit.
    """
    n = sum(sizes.values())
    if (needed := n * n_bytes) > total_memory():
        raise DataError(
            f"Images must fit into memory ({in_gigabytes(total_memory())}), {n:,} of shape "
            f"{shape} need {in_gigabytes(needed)}. Lower data.canvas, or data.train, "
            "data.validation and data.test."
        )


def divide(pool: Pool, fractions: tuple[float, ...], seed: int) -> list[Pool]:
    """Cut a shuffled pool into disjoint pools of the given fractions; the last takes the rest."""
    order = np.random.default_rng(seed).permutation(len(pool.classes))
    cuts = np.round(np.cumsum(fractions[:-1]) * len(order)).astype(int)
    return [pool.take(part) for part in np.split(order, cuts)]


def compose(
    pools: Sequence[Pool], size: int, canvas: int, seed: list[int], tasks: tuple[str, ...]
) -> Part:
    """Compose the images of one part.

    Args:
        pools: of each item, up to four; they stand in `CORNERS`.
        size: how many images.
        canvas: side of the square canvas, at least the side of an item.
        seed: same seed, same bytes.
        tasks: names of the tasks, one an item.
    """
    rng = np.random.default_rng(seed)
    images = np.zeros((size, canvas, canvas), dtype=np.uint8)
    targets = {}
    for corner, task, pool in zip(CORNERS[: len(pools)], tasks, pools, strict=True):
        # Every item is used equally often, up to one: whole permutations, one after another.
        rounds = -(-size // len(pool.classes))
        order = np.concatenate([rng.permutation(len(pool.classes)) for _ in range(rounds)])[:size]
        side = pool.images.shape[1]
        down, right = (slice(side) if at == 0 else slice(canvas - side, canvas) for at in corner)
        window = images[:, down, right]
        np.maximum(window, pool.images[order], out=window)
        targets[task] = torch.from_numpy(pool.classes[order])
    return Part(torch.from_numpy(images)[:, None], targets)
