"""`cifar100-superclasses`: CIFAR-100 as twenty tasks of five classes, each with its own images.

Read from the binary release: rows of a superclass, a class, and three planes of 32 x 32. The label
within a task is the rank of the class among the superclass's five, in alphabetical order. (`fine %
5`, found in older code, gives five different labels in no superclass.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from recon_search.artefact import digest
from recon_search.data.contents import digest_of
from recon_search.data.listed import ListedSamples
from recon_search.data.listing import Faults, Places
from recon_search.data.parts import complete
from recon_search.data.source import PARTS, PartName
from recon_search.data.table import find_root
from recon_search.data.task_data import TaskData
from recon_search.errors import DataError
from recon_search.recipe import DataConfig
from recon_search.tasks.classes import Classes

NAME = "cifar100-superclasses"

URL = "https://www.cs.toronto.edu/~kriz/cifar.html"

SIDE = 32
ROW = 2 + 3 * SIDE * SIDE
"""Bytes of an image and its two labels."""

HELD_OUT = 0.1
"""Share of the training images that validate, in each class; `data.ratio` says otherwise."""

_TABLE = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}

SUPERCLASSES = tuple(_TABLE)
"""The tasks, by their number in the files."""

CLASSES = tuple(sorted(name for names in _TABLE.values() for name in names.split()))
"""By their number in the files, which is alphabetical."""

SUPERCLASS_OF = tuple(
    next(number for number, names in enumerate(_TABLE.values()) if name in names.split())
    for name in CLASSES
)
"""Of every class, the number of its superclass."""


@dataclass(frozen=True)
class Rows:
    """The images of the files, (N, 3, 32, 32)."""

    pixels: NDArray[np.uint8]
    channels: int

    def read(self, row: int) -> Image.Image:
        """Return one."""
        picture = Image.fromarray(np.ascontiguousarray(self.pixels[row].transpose(1, 2, 0)))
        return picture if self.channels == 3 else picture.convert("L")


def read_cifar100(config: DataConfig) -> TaskData:
    """Read `train.bin` and `test.bin`.

    Args:
        config: `root`, which holds them, itself or in `cifar-100-binary`; `ratio`, of whose shares
            of train and validation the training images are cut, and `seed`.

    Raises:
        DataError: a file is missing, cut short, or holds a label that there is not.
    """
    root = find_root(config)
    keys: list[str] = []
    given: list[PartName] = []
    read, labels, digests = [], [], []
    parts: Mapping[str, PartName] = {"train.bin": "train", "test.bin": "test"}
    for name, part in parts.items():
        path = _find(root, name)
        content = path.read_bytes()
        rows = _rows(content, path)
        keys += [f"{name} row {number}" for number in range(1, len(rows) + 1)]
        given += [part] * len(rows)
        read.append(rows[:, 2:].reshape(-1, 3, SIDE, SIDE))
        labels.append(rows[:, :2])
        digests.append(digest_of(content))
    numbers = np.concatenate(labels)
    _check_labels(numbers, keys)
    shares = config.ratio or (1 - HELD_OUT, HELD_OUT, HELD_OUT)
    fine = numbers[:, 1].tolist()
    found = np.array(complete(given, keys, shares, config.seed, strata=[fine]))
    pictures = Rows(np.concatenate(read), config.channels)
    tasks, ranks = [], np.zeros(256, dtype=np.int64)
    for task, names in _TABLE.items():
        own = sorted(CLASSES.index(name) for name in names.split())
        ranks[own] = np.arange(len(own))
        tasks.append(Classes(task, len(own), class_names=tuple(CLASSES[each] for each in own)))
    targets = torch.from_numpy(ranks[numbers[:, 1]])
    sets: dict[PartName, dict[str, ListedSamples]] = {part: {} for part in PARTS}
    listed: dict[PartName, list[int]] = {part: [] for part in PARTS}
    for number, task in enumerate(SUPERCLASSES):
        for part in PARTS:
            picked = np.flatnonzero((found == part) & (numbers[:, 0] == number)).tolist()
            sets[part][task] = ListedSamples(pictures, picked, {task: targets[picked]})
            listed[part] += picked
    return TaskData(
        tasks=tasks,
        parts=sets,
        image_size=(SIDE, SIDE),
        fingerprint=digest([NAME, *digests]),
        describe=Places(keys, listed),
    )


def _find(root: Path, name: str) -> Path:
    tried = [root / name, root / "cifar-100-binary" / name]
    for path in tried:
        if path.is_file():
            return path
    raise DataError(
        f"{NAME} needs the file {name} of CIFAR-100's binary version, found it neither at "
        f"{' nor at '.join(map(str, tried))}. Put it there, or name another --data-root; people "
        f"get it from {URL} (cifar-100-binary.tar.gz)."
    )


def _rows(content: bytes, path: Path) -> NDArray[np.uint8]:
    if not content or len(content) % ROW:
        raise DataError(
            f"{path} must hold whole rows of {ROW} bytes, found {len(content):,} bytes. Fetch it "
            "again; the Python version of the set is another file."
        )
    return np.frombuffer(content, np.uint8).reshape(-1, ROW)


def _check_labels(numbers: NDArray[np.uint8], places: list[str]) -> None:
    """Check superclass and class of every row, (N, 2)."""
    faults = Faults()
    table = np.full(256, -1)
    table[: len(CLASSES)] = SUPERCLASS_OF
    for row in np.flatnonzero(table[numbers[:, 1]] != numbers[:, 0]).tolist():
        own, fine = numbers[row].tolist()
        if fine >= len(CLASSES):
            faults.add(
                f"{places[row]}: a class must be from 0 to 99, found {fine}. Fetch it again."
            )
        else:
            faults.add(
                f"{places[row]}: class {fine} ({CLASSES[fine]}) must be of superclass "
                f"{SUPERCLASS_OF[fine]}, found {own}. Fetch it again."
            )
    faults.check()
