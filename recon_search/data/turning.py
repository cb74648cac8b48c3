"""Pictures that a camera stored turned, as their EXIF data say, and labels of their pixels."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from recon_search.errors import DataError
from recon_search.tasks.normals import Normals
from recon_search.tasks.task import Task

TURNED = "turned"
"""Where `Image.info` says how a picture was turned upright."""


@dataclass(frozen=True)
class Turn:
    """How a picture was turned upright.

    Attributes:
        orientation: of EXIF, from 1, which is upright, to 8.
        size: (H, W) of the picture as it is stored.
    """

    orientation: int
    size: tuple[int, int]


def orientation_of(picture: Image.Image) -> int | None:
    """Return the orientation that a picture's EXIF data say; None if they say none."""
    # JPEG files and images in memory have it here or nowhere; asking for it costs more than this.
    if picture.format in (None, "JPEG") and not {"exif", "xmp"} & picture.info.keys():
        return None
    found = picture.getexif().get(ExifTags.Base.Orientation)
    return found if found in range(1, 9) else None


def turn_upright(picture: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF data say; one that is upright is not copied."""
    return picture if orientation_of(picture) in (None, 1) else ImageOps.exif_transpose(picture)


def turn_needed(picture: object) -> Turn | None:
    """Return how a picture is to be turned; None if it is upright, or none."""
    if not isinstance(picture, Image.Image):
        return None
    found = orientation_of(picture)
    return None if found in (None, 1) else Turn(found, (picture.height, picture.width))


def turn_of(picture: object) -> Turn | None:
    """Return how a picture was turned when `read_picture` read it; None if it was upright."""
    return picture.info.get(TURNED) if isinstance(picture, Image.Image) else None


def turn_label(task: Task, target: Tensor, turn: Turn | None) -> Tensor:
    """Turn a label of pixels as its image was, if it was drawn on the image as that is stored.

    That is taken for true of every label of the stored image's size. Only where an image lies on
    its side can a label of another size tell that it was drawn on the upright one.

    Args:
        task: of the label.
        target: (H, W) or (n, H, W).
        turn: of the image; None for one that was upright.

    Raises:
        DataError: normals of an image on its side: which way y points in them is not known.
    """
    if turn is None or tuple(target.shape[-2:]) != turn.size:
        return target
    is_swapped, flips = _MOVES[turn.orientation]
    if is_swapped and isinstance(task, Normals):
        raise DataError(
            f"Normals of task '{task.name}' must be those of an image that is stored upright or "
            "upside down, its EXIF data say that it lies on its side. Store both upright."
        )
    found = (target.transpose(-1, -2) if is_swapped else target).flip(flips).clone()
    if isinstance(task, Normals):
        for axis in flips:
            found[-1 - axis] = -found[-1 - axis]  # mirrored in x, the last axis, or in y
    return found


_MOVES = {
    1: (False, ()),
    2: (False, (-1,)),
    3: (False, (-2, -1)),
    4: (False, (-2,)),
    5: (True, ()),
    6: (True, (-1,)),
    7: (True, (-2, -1)),
    8: (True, (-2,)),
}
"""By orientation: whether rows become columns, and what is mirrored then."""
