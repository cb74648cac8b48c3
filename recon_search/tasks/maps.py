"""Pictures whose pixels hold labels: arrays as files have them, checked and laid out one way."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_search.errors import LabelError

LARGEST = 2.0**63
"""Below which int64 holds whole numbers."""


def array(picture: Any, task: str) -> NDArray[Any]:
    """Return what a picture holds: an array, a tensor or a PIL image.

    Raises:
        LabelError: it does not hold numbers.
    """
    try:
        found = np.asarray(picture)
    except Exception:  # of whatever object
        found = np.asarray(None)
    if found.dtype.kind not in "biuf":
        raise LabelError(
            f"Task '{task}' must be given arrays of numbers, found {type(picture).__name__} of "
            f"{found.dtype}. Store numbers."
        )
    return found


def one_number(picture: Any, task: str) -> NDArray[Any]:
    """Return a picture of one number a pixel as (H, W); (H, W, 1) and (1, H, W) are read too.

    Raises:
        LabelError: it has another shape.
    """
    found = array(picture, task)
    if found.ndim == 3 and 1 in (found.shape[2], found.shape[0]):
        found = found[:, :, 0] if found.shape[2] == 1 else found[0]
    if found.ndim != 2 or not found.size:
        raise LabelError(
            f"Task '{task}' must be given one number a pixel, (H, W), found the shape "
            f"{np.shape(picture)}. Store one channel."
        )
    return found


def whole_numbers(picture: Any, task: str) -> NDArray[np.int64]:
    """Return a picture of one whole number a pixel, int64 (H, W); 3.0 is one too.

    Raises:
        LabelError: it has another shape, or a value that is no whole number.
    """
    found = one_number(picture, task)
    if found.dtype.kind == "f":
        wrong = ~np.isfinite(found) | (found != np.round(found))
        if wrong.any():
            raise LabelError(
                f"Task '{task}' must be given whole numbers, found {found[wrong][0]:g} in "
                f"{wrong.sum()} pixels. Store whole numbers; what is unknown by that of "
                "`ignore_index`."
            )
    if (large := np.abs(found.astype(np.float64)) >= LARGEST).any():  # would become another number
        raise LabelError(
            f"Task '{task}' must be given whole numbers that 64 bits hold with a sign, found "
            f"{found[large][0]:g} in {large.sum()} pixels. Store others."
        )
    return found.astype(np.int64)


def vectors(picture: Any, task: str) -> NDArray[Any]:
    """Return a picture of three numbers a pixel as (3, H, W); (H, W, 3) is read too.

    Where both the first and the last dimension are 3, the last is taken for the vectors'.

    Raises:
        LabelError: it has another shape.
    """
    found = array(picture, task)
    if found.ndim == 3 and found.shape[2] == 3:
        found = np.moveaxis(found, 2, 0)
    if found.ndim != 3 or len(found) != 3 or not found.size:
        raise LabelError(
            f"Task '{task}' must be given three numbers a pixel, (H, W, 3) or (3, H, W), found the "
            f"shape {np.shape(picture)}. Store x, y, z."
        )
    return found
