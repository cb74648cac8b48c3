"""Data sets by name."""

from __future__ import annotations

from recon_search.data.dataset import MultiTaskData
from recon_search.data.digits import load_multi_digits
from recon_search.data.mnist import SOURCES, load_multi_mnist
from recon_search.errors import DataError, nearest

DEFAULTS = {
    "multi-digits": (24, 8_000, 2_000, 10_000),
    **dict.fromkeys(SOURCES, (36, 120000, 10000, 20000)),
}
"""Canvas and pairs in train, validation and test where the recipe says nothing."""


def load_data(
    name: str,
    *,
    train: int | None = None,
    validation: int | None = None,
    test: int | None = None,
    canvas: int | None = None,
    seed: int = 0,
    root: str | None = None,
    download: bool = False,
) -> MultiTaskData:
    """Load or compose a data set by name.

    Args:
        name: a key of `DEFAULTS`.
        train: number of training pairs; likewise `validation` and `test`.
        validation: see `train`.
        test: see `train`.
        canvas: side of the images.
        seed: seed of the composition, not of the training: runs over seeds share their data.
        root: folder with the files, where the set needs any.
        download: fetch missing files into `root`.

    Raises:
        DataError: the name is unknown, or files are missing or malformed.
    """
    if name not in DEFAULTS:
        raise DataError(
            f"`data.name` must be one of {', '.join(DEFAULTS)}, got '{name}'."
            f"{nearest(name, DEFAULTS)}"
        )
    default_canvas, *default_sizes = DEFAULTS[name]
    wanted = {"train": train, "validation": validation, "test": test}
    sizes = {
        part: default if size is None else size
        for (part, size), default in zip(wanted.items(), default_sizes, strict=True)
    }
    side = default_canvas if canvas is None else canvas
    if name == "multi-digits":
        return load_multi_digits(sizes, side, seed)
    if side < 28:
        raise DataError(f"`data.canvas` must be at least 28 for {name}, got {side}. Raise it.")
    return load_multi_mnist(name, sizes, side, seed, root, download)
