"""Data of one's own: a function that returns tasks and samples, for `own-data.toml`.

Copy this file, let `build` return your tasks and parts, and name it in a recipe:

    [data]
    name = "factory"
    factory = "own_data:build"      # "module:function"; its folder must be on PYTHONPATH
    args = { n_train = 1000 }        # what it is called with
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

import recon_search as rs

Targets = Mapping[str, int | float | None]


class Digits:
    """One part: scikit-learn's digits as pictures; which digit it is, and how much ink it took.

    Any object with a length that is read by index will do, a `torch.utils.data.Dataset` too.
    """

    def __init__(self, pictures: NDArray[np.uint8], digits: NDArray[np.int64]) -> None:
        self.pictures, self.digits = pictures, digits

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, index: int) -> tuple[Image.Image, Targets]:
        """Return an image, here made and usually opened by PIL, and a target for each task.

        It is called in several processes at once, and must return the same each time.
        """
        return Image.fromarray(self.pictures[index]), self.targets(index)

    def targets(self, index: int) -> Targets:
        """Return the targets alone: may be left out, but tells early what is incomplete."""
        ink = float(self.pictures[index].mean()) / 255 * 100
        is_known = index % 5 > 0  # a label may be missing: None
        return {"digit": int(self.digits[index]), "ink": ink if is_known else None}


def build(n_train: int = 1000, n_validation: int = 200, seed: int = 0) -> rs.TaskData:
    """Return tasks and samples.

    Args:
        n_train: pictures to train on.
        n_validation: pictures to choose by; the rest is for the test.
        seed: of the division; `data.seed` is handed in where a factory takes a `seed`.
    """
    bunch = load_digits()
    pictures = (bunch.images * (255 / 16)).round().astype(np.uint8)
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed)).numpy()
    train, validation, test = np.split(order, [n_train, n_train + n_validation])
    parts = {
        name: Digits(pictures[rows], bunch.target[rows])
        for name, rows in (("train", train), ("validation", validation), ("test", test))
    }
    ink = [parts["train"].targets(row)["ink"] for row in range(n_train)]
    tasks: list[rs.Task] = [
        rs.Classes("digit", n_classes=10),
        rs.Values.fit("ink", ink, unit="%"),  # takes mean and deviation of what is known
    ]
    return rs.TaskData(tasks, parts)
