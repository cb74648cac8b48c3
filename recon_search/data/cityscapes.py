"""`cityscapes`: MTAN's copy, train/ and val/ of .npy files; classes of pixels and inverse depth.

`val` is what papers test on: it is the test part, and validation is cut off train (`data.ratio`).
"""

from __future__ import annotations

from collections.abc import Mapping

from recon_search.data.arrays import read_arrays
from recon_search.data.benchmark import Benchmark
from recon_search.data.task_data import TaskData
from recon_search.recipe import DataConfig, TaskConfig

CATEGORIES = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")
"""The seven groups of the official classes, in the official order."""

CLASSES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign"),
    *("vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train"),
    *("motorcycle", "bicycle"),
)
"""The 19 official classes by their training ids."""

CITYSCAPES = Benchmark(
    "cityscapes",
    "Download the copy that the README of github.com/lorenmt/mtan links to (licence: "
    "cityscapes-dataset.com), and name its folder with train/ and val/ by --data-root.",
    {
        "segmentation": {"kind": "segments", "target": None},
        "depth": {"kind": "depth", "target": "depth"},
    },
)


def read_cityscapes(config: DataConfig, tables: Mapping[str, TaskConfig]) -> TaskData:
    """Find the arrays of CityScapes, of whatever size.

    Args:
        config: `root`, `ratio`, `tasks`.
        tables: options; `tasks.segmentation.target = "label_19"` takes 19 classes, not seven.

    Raises:
        DataError: a folder or file is missing or of no use; names it.
        RecipeError: the recipe does not fit.
    """
    tables = CITYSCAPES.settle(config, tables)
    root = CITYSCAPES.root(config)
    CITYSCAPES.find(root, "train/image", "train/images")
    if (own := tables.get("segmentation")) is not None:
        names = ("label_7", "label") if own.target is None else (str(own.target),)
        found = CITYSCAPES.find(root, *(f"train/{name}" for name in names))
        classes = CLASSES if found.name == "label_19" else CATEGORIES
        given = {} if "n_classes" in own.options else {"classes": classes}
        merged = {**given, **own.options, "kind": own.kind, "target": found.name}
        tables["segmentation"] = TaskConfig(**merged)
    return read_arrays(config, tables)
