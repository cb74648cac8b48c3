"""Data sets by name."""

from __future__ import annotations

from recon_search.data.digits import multi_digits
from recon_search.data.mnist import SOURCES, multi_mnist
from recon_search.data.source import PARTS, Source
from recon_search.errors import DataError, nearest
from recon_search.recipe import DataConfig

DEFAULTS = {
    "multi-digits": (24, 8_000, 2_000, 10_000),
    **dict.fromkeys(SOURCES, (36, 120000, 10000, 20000)),
}
"""Canvas and pairs in train, validation and test where the recipe says nothing."""


def find_source(config: DataConfig) -> Source:
    """Find the data that `[data]` names; nothing but its schema is read yet.

    Raises:
        DataError: the name is unknown, or files are missing or malformed.
    """
    name = config.name
    if name not in DEFAULTS:
        raise DataError(
            f"`data.name` must be one of {', '.join(DEFAULTS)}, got '{name}'."
            f"{nearest(name, DEFAULTS)}"
        )
    default_canvas, *default_sizes = DEFAULTS[name]
    wanted = (config.train, config.validation, config.test)
    sizes = {
        part: default if size is None else size
        for part, size, default in zip(PARTS, wanted, default_sizes, strict=True)
    }
    side = default_canvas if config.canvas is None else config.canvas
    if name == "multi-digits":
        return multi_digits(sizes, side, config.seed)
    if side < 28:
        raise DataError(f"`data.canvas` must be at least 28 for {name}, got {side}. Raise it.")
    return multi_mnist(name, sizes, side, config.seed, config.root, config.download)
