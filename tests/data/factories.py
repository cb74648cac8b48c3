"""Functions that recipes of the tests name by import path."""

from dataclasses import replace

import recon_search as rs
from tests.data.samples import Listed, of_feed, of_tensors

Left, Right = rs.Classes("left", 3), rs.Classes("right", 4)


def build(n=45, fingerprint="", shape=(3, 6, 8)):
    """Tensors."""
    sizes = {"train": n, "validation": 21, "test": 20}
    return of_tensors(tuple(shape), sizes=sizes, fingerprint=fingerprint)


def where(root, seed, extra=0):
    """Data whose fingerprint says what this was called with."""
    return of_tensors(fingerprint=f"{root} {seed} {extra}")


def digits(train, validation=32, test=32):
    """The pairs of digits of a built-in data set, as samples."""
    from recon_search.data.registry import find_source
    from recon_search.recipe import DataConfig

    config = DataConfig(
        name="multi-digits", train=train, validation=validation, test=test, canvas=12
    )
    return of_feed(find_source(config).open("cpu"))


def unlabelled(parts=(), n=40):
    """A class that has no label in some parts, and one whose labels are all there."""
    found = of_tensors((3, 16, 16), sizes={"train": n, "validation": 20, "test": 20})
    cut = {
        part: Listed((image, {**targets, "b": None}) for image, targets in found.parts[part])
        for part in parts
    }
    return replace(found, parts={**found.parts, **cut})


def nothing():
    """What is no data."""
    return [1, 2]


def failing():
    """Fail."""
    raise KeyError("column")
