"""`pascal-context`: the PASCAL_MT copy: classes, human parts, saliency, normals and borders.

`val` is what papers test on: it is the test part, and validation is cut off train (`data.ratio`).
Files of Matlab are read by scipy, which executes nothing of them, and of each one variable alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.ndimage
from numpy.typing import NDArray

from recon_search.data.array_files import read_array
from recon_search.data.arrays import Row, make_data
from recon_search.data.benchmark import Benchmark
from recon_search.data.listing import Faults
from recon_search.data.source import PartName
from recon_search.data.tables import read_lines
from recon_search.data.task_data import TaskData
from recon_search.data.thinning import thin
from recon_search.errors import DataError, in_one_line
from recon_search.recipe import DataConfig, TaskConfig

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)

PARTS = ("background", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg")

PERSON = 15
"""The number of that class of objects."""

_PAIRED = {
    **dict.fromkeys(["ear", "eye", "ebrow"], 1),
    "uarm": 3,
    "larm": 4,
    "hand": 4,
    "uleg": 5,
    "lleg": 6,
    "foot": 6,
}
_PART_OF = {
    "head": 1,
    "hair": 1,
    "nose": 1,
    "mouth": 1,
    "torso": 2,
    "neck": 2,
    **{f"{side}{name}": part for side in "lr" for name, part in _PAIRED.items()},
}
"""The part that each of the annotation's own is of."""

FACING = frozenset(
    [
        *(3, 4, 6, 9, 10, 11, 13, 15, 17, 18, 22, 23, 29, 30, 33, 34, 36, 37, 38, 39, 41, 43, 46),
        *(49, 50, 51, 53, 55, 56, 59, 61, 62, 65, 66, 68, 69, 72, 73, 78, 83, 84, 85, 87, 88, 95),
        *(96, 101, 104, 105, 107, 111, 113, 115, 122, 124, 135, 141, 142, 143, 146, 150, 154, 157),
        *(158, 159, 165, 172, 174, 181, 183, 184, 191, 193, 195, 197, 199, 202, 213, 215, 216, 219),
        *(220, 223, 225, 228, 230, 232, 233, 238, 239, 242, 243, 246, 250, 251, 252, 255, 260, 261),
        *(263, 269, 272, 273, 275, 281, 283, 284, 285, 286, 287, 288, 290, 291, 292, 293, 295, 304),
        *(307, 309, 310, 314, 315, 319, 323, 329, 330, 331, 336, 342, 345, 349, 350, 351, 352, 355),
        *(357, 368, 370, 371, 374, 379, 380, 383, 384, 397, 401, 403, 405, 407, 408, 411, 412, 413),
        *(414, 417, 419, 421, 423, 427, 429, 430, 432, 440, 441, 442, 443, 444, 446, 454, 457),
    ]
)
"""Of the 459 classes of PASCAL-Context, those whose name NYUv2 has too, and tvmonitor: the normals,
which a network trained on NYUv2 has made, are valid there."""

PASCAL_CONTEXT = Benchmark(
    "pascal-context",
    "Get PASCAL_MT.tgz as the README of github.com/SimonVandenhende/Multi-Task-Learning-PyTorch "
    "says, and name its folder, which holds JPEGImages/, by --data-root.",
    {
        "semseg": {"kind": "segments", "classes": CLASSES, "ignore_index": 255},
        "parts": {"kind": "segments", "classes": PARTS, "ignore_index": 255, "weight": 2.0},
        "saliency": {
            "kind": "edges",
            "metrics": ("best-jaccard",),
            "threshold": 127.5,
            "weight": 5.0,
        },
        "normals": {"kind": "normals", "criterion": "l1", "weight": 10.0},
        "edge": {"kind": "edges", "positive_weight": 0.95, "weight": 50.0},
    },
)

_FILES = {
    "semseg": ("semseg/VOC12/{}.png", "semseg/pascal-context/{}.png"),
    "parts": ("human_parts/{}.mat",),
    "saliency": ("sal_distill/{}.png",),
    "normals": ("normals_distill/{}.png",),
    "edge": ("pascal-context/trainval/{}.mat",),
}


def read_pascal_context(config: DataConfig, tables: Mapping[str, TaskConfig]) -> TaskData:
    """Find the files of every image that the lists name.

    Args:
        config: `root`, `ratio`, `tasks`.
        tables: options.

    Raises:
        DataError: a list or a file is missing, or of no use; names it.
        RecipeError: the recipe does not fit.
    """
    tables = PASCAL_CONTEXT.settle(config, tables)
    root = PASCAL_CONTEXT.root(config)
    lists: dict[PartName, Path] = {
        "train": PASCAL_CONTEXT.find(root, "ImageSets/Context/train.txt"),
        "test": PASCAL_CONTEXT.find(root, "ImageSets/Context/val.txt"),
    }
    first: dict[str, str] = {}
    rows = {part: _list(path, root, tables, first) for part, path in lists.items()}
    return make_data(rows, root, config, tables, read_target, is_fitted=True)


def read_target(task: str, path: Path) -> NDArray[Any]:
    """Read the label of an image: what is stored, or what it is made of.

    Raises:
        DataError: a file cannot be read, or holds something else; names it.
    """
    if task == "parts":
        return _read_parts(path)
    if task == "edge":
        return _find_borders(_read_classes(path))
    found = read_array(path)
    if task != "normals":
        return found
    classes = _read_classes(_classes_of(path))
    if found.ndim != 3:  # before it is broadcast
        raise DataError(
            f"{path} must hold three numbers a pixel, (H, W, 3), found {found.shape}. Replace it."
        )
    if found.shape[:2] != classes.shape:
        down, right = (
            np.arange(n) * m // n for n, m in zip(found.shape[:2], classes.shape, strict=True)
        )
        classes = classes[down[:, None], right]
    # black pixels of bytes are not valid
    return np.where(np.isin(classes, [*FACING])[..., None], found, np.zeros_like(found))


def _list(
    path: Path, root: Path, tables: Mapping[str, TaskConfig], first: dict[str, str]
) -> list[Row]:
    """Find the files of the images that a list names; `first` says where each was listed."""
    names = [
        (number, name) for number, line in enumerate(read_lines(path), 1) if (name := line.strip())
    ]
    if not names:
        raise DataError(f"{path} must name images, found none. {PASCAL_CONTEXT.home}")
    faults = Faults()
    rows = []
    for number, name in names:
        place = f"{path.name} row {number}"
        if (other := first.setdefault(name, place)) != place:
            faults.add(f"{place}: an image must be listed once, {name} is in {other}. Keep one.")

        def find(patterns: tuple[str, ...], name: str = name, place: str = place) -> Path:
            for pattern in patterns:
                if (file := root / pattern.format(name)).is_file():
                    return file
            places = " and ".join(str(root / pattern.format(name)) for pattern in patterns)
            faults.add(f"{place}: a file must exist, found none at {places}. Add it.")
            return root

        labels = {task: find(_FILES[task]) for task in tables}
        others = (find(_FILES["edge"]),) if "normals" in tables else ()
        rows.append(Row(find(("JPEGImages/{}.jpg",)), labels, others))
    faults.check()
    return rows


def _classes_of(normals: Path) -> Path:
    """The file with the classes of the pixels whose normals a file holds."""
    return normals.parents[1] / _FILES["edge"][0].format(normals.stem)


def _read_matlab(path: Path, variable: str) -> Any:
    """Read a variable of a file of Matlab, its structures as dictionaries."""
    try:
        return scipy.io.loadmat(path, variable_names=[variable], simplify_cells=True)[variable]
    except Exception as error:  # of files, of scipy's decoder
        raise DataError(
            f"{path} must be a Matlab file of version 5 with {variable}, it does not load "
            f"({in_one_line(error)}). Replace it."
        ) from None


def _read_classes(path: Path) -> NDArray[Any]:
    found = np.asarray(_read_matlab(path, "LabelMap"))
    if found.ndim != 2 or found.dtype.kind not in "uif" or not _is_whole(found):
        raise DataError(
            f"{path} must hold a class a pixel in LabelMap, (H, W), found {found.dtype} "
            f"{found.shape}. Replace it."
        )
    return found


def _is_whole(numbers: NDArray[Any]) -> bool:
    return bool((np.isfinite(numbers) & (numbers == np.round(numbers))).all())


def _find_borders(classes: NDArray[Any]) -> NDArray[np.uint8]:
    """Return 1 where classes meet, in lines of one pixel."""
    sharp = scipy.ndimage.laplace(classes.astype(np.float64), mode="mirror") != 0
    return thin(sharp).astype(np.uint8)


def _read_parts(path: Path) -> NDArray[np.uint8]:
    """Return the parts of all people; 255 everywhere if there is no part."""
    try:
        objects = _entries(_read_matlab(path, "anno")["objects"])
        shapes = [np.shape(each["mask"]) for each in objects]
        found = np.zeros(shapes[0] if shapes else (1, 1), np.uint8)
        for own in objects:
            if int(own["class_ind"]) != PERSON:
                continue
            for part in _entries(own["parts"]):
                found[np.asarray(part["mask"], bool)] = _PART_OF[str(part["part_name"])]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} must hold objects with class_ind, mask and parts in anno, it does not "
            f"({in_one_line(error)}). Replace it."
        ) from None
    return found if found.any() else np.full_like(found, 255)


def _entries(found: Any) -> Iterator[Any] | list[Any]:
    """The structures of an array, which scipy gives as one, as a list, or as an empty array."""
    return [found] if isinstance(found, dict) else list(found)
