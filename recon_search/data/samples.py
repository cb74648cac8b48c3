"""A part of a data set, as whoever has one gives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

    Picture = Image | Tensor

Target = Tensor | float | int | None
"""What a task's `loss` takes for one sample; None, like a missing key, is no label."""


class Samples(Protocol):
    """A part: a map-style data set, as `torch.utils.data.Dataset` is.

    `[i]` is a pair: an image, and by task name the target. Images are PIL images, or tensors
    (C, H, W): uint8 of any size, or float32, which is taken as it is, without scaling; all of one
    kind. It is called in several processes at once and must depend on `i` alone: what is random
    comes from `[data.augment]`.

    A method `targets(i)`, if there is one, returns the targets without the image.
    """

    def __len__(self) -> int:
        """Number of samples."""

    def __getitem__(self, index: int) -> tuple[Picture, Mapping[str, Target]]:
        """Return the image and the targets of a sample."""
