"""Data that put splitting on trial: where it should not help, and where each question has a key.

    [data]
    name = "factory"
    factory = "recon_search.recipes.trials:late"
    args = { train = 6400 }         # see each function

`tests/benchmarks/trials.py` runs them all. Besides `relabelled` they are composed of MNIST and
Fashion-MNIST, whose IDX files `--data-root FOLDER` holds, at half of their side: small networks on
small images train in seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import recon_search as rs
from recon_search.data.compose import Pool, compose
from recon_search.data.digits import multi_digits
from recon_search.data.mnist import multi_mnist
from recon_search.data.resident import Part
from recon_search.data.source import PARTS, PartName
from recon_search.errors import DataError

SHRINK = 2
"""By which the side of an item is divided: 14 pixels remain of 28."""

N_CLASSES = 10


class Items:
    """One part, whole: images (N, 1, S, S) and each task's classes, None where there is none."""

    def __init__(self, images: Tensor, classes: Mapping[str, list[int | None]]) -> None:
        self.images, self.classes = images, classes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, int | None]]:
        """Return an image and its targets."""
        return self.images[index], self.targets(index)

    def targets(self, index: int) -> dict[str, int | None]:
        """Return the targets alone."""
        return {task: own[index] for task, own in self.classes.items()}


def relabelled(
    second: str = "twice",
    train: int = 6400,
    validation: int = 1000,
    test: int = 4000,
    canvas: int = 24,
    seed: int = 0,
) -> rs.TaskData:
    """Pairs of scikit-learn's digits of which the left one is learned, and something else of it.

    Args:
        second: `twice`, the left digit once more, where no split should help; or `odd`, whether it
            is odd.
        train: pairs of a part, and so the others.
        validation: see `train`.
        test: see `train`.
        canvas: side of the images.
        seed: of the pairs.

    Raises:
        DataError: `second` is neither.
    """
    if second not in ("twice", "odd"):
        raise DataError(f"`second` must be twice or odd, got '{second}'. Change it.")
    sizes: dict[PartName, int] = {"train": train, "validation": validation, "test": test}
    feed = multi_digits(sizes, canvas, seed).open(torch.device("cpu"))
    n_classes = 2 if second == "odd" else N_CLASSES
    parts = {}
    for name, part in feed.parts.items():
        digits = part.targets["left"].tolist()
        other = [digit % n_classes for digit in digits]
        parts[name] = Items(part.inputs, {"left": digits, second: other})
    return _data([rs.Classes("left", N_CLASSES), rs.Classes(second, n_classes)], parts)


def four(
    root: str | None = None,
    train: int = 6400,
    validation: int = 1000,
    test: int = 4000,
    canvas: int = 22,
    seed: int = 0,
) -> rs.TaskData:
    """Four items on one canvas, a task each: two digits and two garments, which overlap.

    Digits stand top left and top right, garments bottom right and bottom left.

    Args:
        root: folder that holds `mnist` and `fashion-mnist`.
        train: images of a part, and so the others.
        validation: see `train`.
        test: see `train`.
        canvas: side of the images, 14 at least; below 28 the items overlap.
        seed: of the pools and of what is composed.
    """
    tasks = ("digit-left", "garment-right", "digit-right", "garment-left")
    sizes: dict[PartName, int] = {"train": train, "validation": validation, "test": test}
    pools = _pools("multi-fashion-mnist", sizes, root, seed)
    parts = {}
    for index, name in enumerate(PARTS):
        digits, garments = pools[name]
        items = (digits, garments, digits, garments)
        parts[name] = _items(compose(items, sizes[name], canvas, [seed, index], tasks))
    return _data([rs.Classes(task, N_CLASSES) for task in tasks], parts)


def late(
    root: str | None = None,
    train: int = 6400,
    validation: int = 1000,
    test: int = 4000,
    n_tasks: int = 3,
    seed: int = 0,
) -> rs.TaskData:
    """Single garments, and tasks that see the same in them and mean something else by it.

    Every task sorts the ten classes into five pairs; two classes that are a pair for one task are
    apart for all others, as rounds of a tournament are. What a garment looks like serves all tasks
    alike, so that the first layers have nothing to quarrel about; narrow features
    (`backbone.features`) that keep a task's pairs together and tell pairs apart serve that task
    alone.

    Args:
        root: folder that holds `fashion-mnist`.
        train: images of a part, and so the others.
        validation: see `train`.
        test: see `train`.
        n_tasks: 2 to 9, as many rounds as ten have.
        seed: of the pools and of the order.

    Raises:
        DataError: there are not that many rounds, or images.
    """
    if not 2 <= n_tasks < N_CLASSES:
        raise DataError(f"`n_tasks` must be between 2 and {N_CLASSES - 1}, got {n_tasks}.")
    sizes: dict[PartName, int] = {"train": train, "validation": validation, "test": test}
    pools = _pools("multi-fashion", sizes, root, seed, shrink=1)
    groupings = {f"pairs-{number + 1}": pairing(number) for number in range(n_tasks)}
    parts = {}
    for index, name in enumerate(PARTS):
        pool = pools[name][0]
        if sizes[name] > len(pool.classes):
            raise DataError(
                f"The {name} part must hold at most {len(pool.classes)} images, got {sizes[name]}. "
                f"Lower data.args.{name}."
            )
        order = np.random.default_rng([seed, index]).permutation(len(pool.classes))
        chosen = pool.take(order[: sizes[name]])
        classes: dict[str, list[int | None]] = {
            task: [pairs[item] for item in chosen.classes] for task, pairs in groupings.items()
        }
        parts[name] = Items(torch.from_numpy(chosen.images)[:, None], classes)
    return _data([rs.Classes(task, N_CLASSES // 2) for task in groupings], parts)


def pairing(number: int) -> list[int]:
    """Sort ten classes into five pairs: a round of a tournament by the circle method.

    Args:
        number: of the round, 0 to 8; no two classes meet in two rounds.

    Returns:
        The pair, 0 to 4, of every class.
    """
    last = N_CLASSES - 1
    pairs = [0] * N_CLASSES  # the last class meets `number`
    for step in range(1, N_CLASSES // 2):
        pairs[(number + step) % last] = pairs[(number - step) % last] = step
    return pairs


def thinned(
    root: str | None = None,
    overlap: float = 1.0,
    train: int = 6006,
    validation: int = 1000,
    test: int = 4000,
    canvas: int = 18,
    seed: int = 0,
) -> rs.TaskData:
    """Pairs of a digit and a garment of which each task has a label in half of the training pairs.

    Only what the halves have in common is varied. At every overlap the images are the same, so are
    the steps of an epoch, and so is how many labels a task has in all and, on average, in a batch;
    the digits' labels are the very same. Pairs that neither task has a label of stay in, for else
    there would be fewer steps the larger the overlap is. All pairs of the other parts have both.

    Args:
        root: folder that holds `mnist` and `fashion-mnist`.
        overlap: of the pairs that have a label, the share that has both, 0 to 1. It is exact for
            1, 0.4, 0.3, 0.1 and 0 where `train` is a multiple of 2002, else to the nearest pair.
        train: pairs of a part, and so the others.
        validation: see `train`.
        test: see `train`.
        canvas: side of the images, 14 at least.
        seed: of the pools, of the pairs and of who has a label.

    Raises:
        DataError: the overlap is no share.
    """
    if not 0 <= overlap <= 1:
        raise DataError(f"`overlap` must be a share between 0 and 1, got {overlap}. Change it.")
    sizes: dict[PartName, int] = {"train": train, "validation": validation, "test": test}
    pools, tasks = _pools("multi-fashion-mnist", sizes, root, seed), ("digit", "fashion")
    parts = {
        name: _items(compose(pools[name], sizes[name], canvas, [seed, index], tasks))
        for index, name in enumerate(PARTS)
    }
    half = train // 2
    both = round(2 * half * overlap / (1 + overlap))  # of 2 half - both that have a label
    order = np.random.default_rng([seed, len(PARTS)]).permutation(train)
    kept = {"digit": order[:half], "fashion": order[half - both : 2 * half - both]}
    for task, rows in kept.items():
        parts["train"].classes[task][:] = _only(parts["train"].classes[task], rows)
    return _data([rs.Classes(task, N_CLASSES) for task in tasks], parts)


def _only(classes: list[int | None], rows: NDArray[np.int64]) -> list[int | None]:
    """Leave the labels of some rows."""
    known = set(rows.tolist())
    return [label if row in known else None for row, label in enumerate(classes)]


def _pools(
    name: str, sizes: Mapping[PartName, int], root: str | None, seed: int, shrink: int = SHRINK
) -> dict[PartName, tuple[Pool, Pool]]:
    """Read a built-in set's items, smaller by averages of squares of pixels."""
    found = multi_mnist(name, sizes, 28, seed, root, download=False).read()
    return {
        part: tuple(Pool(_shrink(pool.images, shrink), pool.classes) for pool in pair)  # type: ignore[misc]
        for part, pair in found.items()
    }


def _shrink(images: NDArray[np.uint8], by: int) -> NDArray[np.uint8]:
    n, height, width = images.shape
    squares = images.reshape(n, height // by, by, width // by, by)
    means: NDArray[np.float32] = squares.mean((2, 4), dtype=np.float32)
    return means.round().astype(np.uint8)


def _items(part: Part) -> Items:
    return Items(part.inputs, {task: own.tolist() for task, own in part.targets.items()})


def _data(tasks: list[rs.Task], parts: Mapping[PartName, Items]) -> rs.TaskData:
    """Return tasks and samples, known by their bytes."""
    found = hashlib.sha256()
    for name, part in parts.items():
        found.update(f"{name} {tuple(part.images.shape)} {part.classes}".encode())
        found.update(part.images.contiguous().numpy().tobytes())
    return rs.TaskData(tasks, parts, fingerprint=found.hexdigest()[:16])
