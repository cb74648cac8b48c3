"""Image files and bytes as pictures of 8 bits: RGB or grey, upright, or refused in one line."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from recon_search.data.turning import TURNED, turn_needed, turn_upright
from recon_search.disk import special
from recon_search.errors import DataError, in_one_line

MODES = {1: "L", 3: "RGB"}
"""How Pillow calls pictures of so many channels."""


def extensions() -> frozenset[str]:
    """Return what names of image files end with, in small letters."""
    Image.init()
    return frozenset(
        end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN
    )


def read_size(content: bytes, name: str) -> tuple[int, int]:
    """Return (H, W) that an image has when upright, without decoding it.

    Raises:
        DataError: it does not begin like an image of a size that can be decoded; `name` says which.
    """
    picture = _open(content, name)
    width, height = picture.size
    try:
        exif = Image.Image.getexif(picture)  # that of PNG decodes the image
        lies = exif.get(ExifTags.Base.Orientation, 1) >= 5
    except Exception:  # damaged EXIF data, which say nothing
        lies = False
    return (width, height) if lies else (height, width)


def read_picture(source: Path | bytes | NDArray[np.uint8], name: str, channels: int) -> Image.Image:
    """Decode an image.

    It is turned upright as its EXIF data say; `turn_of` then says how. Of 16 bits the upper 8 are
    kept. What is transparent is laid on white; palettes, CMYK and bits are converted.

    Args:
        source: a file, its content, or pixels (H, W) or (H, W, C) with 1, 3 or 4 channels.
        name: of the image, for errors.
        channels: 1 for grey, 3 for RGB.

    Raises:
        DataError: it cannot be decoded, is cut short, is too large, or has pixels without a range.
    """
    if isinstance(source, np.ndarray):
        return convert(_of_pixels(source, name), name, channels)
    if isinstance(source, Path) and (kind := special(source)) is not None:
        raise DataError(f"{name} must be a file, it is {kind}. Remove it.")
    try:
        content = source if isinstance(source, bytes) else source.read_bytes()
    except OSError as error:
        raise DataError(
            f"{name} must be readable, it is not ({error.strerror}). Check the file."
        ) from None
    picture = _open(content, name)
    try:
        picture.load()
        turn, upright = turn_needed(picture), turn_upright(picture)
    except Exception as error:  # decoders raise whatever they meet in damaged data
        raise DataError(
            f"{name} must be a whole image, it does not decode ({in_one_line(error)}). Replace it, "
            "or leave it out."
        ) from None
    found = convert(upright, name, channels)
    if turn is not None:
        found.info[TURNED] = turn
    return found


def _open(content: bytes, name: str) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return Image.open(io.BytesIO(content))
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise DataError(
                f"{name} must have at most {Image.MAX_IMAGE_PIXELS:,} pixels, it has more. Make it "
                "smaller."
            ) from None
        except UnidentifiedImageError:
            found = "is empty" if not content else "is none that Pillow knows"
            raise DataError(
                f"{name} must be an image, it {found}. Replace it, or leave it out."
            ) from None
        except Exception as error:
            raise DataError(
                f"{name} must be an image, it does not open ({in_one_line(error)}). Replace it, or "
                "leave it out."
            ) from None


def _of_pixels(pixels: NDArray[np.uint8], name: str) -> Image.Image:
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    is_picture = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if not is_picture or not pixels.size or pixels.dtype != np.uint8:
        raise DataError(
            f"{name} must hold whole numbers from 0 to 255 of shape (height, width) or (height, "
            f"width, 1, 3 or 4), found {pixels.dtype} {pixels.shape}. Convert it."
        )
    return Image.fromarray(np.ascontiguousarray(pixels))


def convert(picture: Image.Image, name: str, channels: int) -> Image.Image:
    """Bring a decoded picture to 8 bits in grey or RGB (see `read_picture`).

    Raises:
        DataError: its pixels have no range.
    """
    if picture.mode == "F":
        raise DataError(
            f"{name} must have pixels of 8 or 16 bits, it has floating-point ones, whose range is "
            "not known. Convert it."
        )
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        deep = np.asarray(picture).astype(np.int64)
        picture = Image.fromarray((deep.clip(0, 65535) >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        clear = picture.convert("RGBA")
        white = Image.new("RGBA", clear.size, "white")
        picture = Image.alpha_composite(white, clear)
    mode = MODES[channels]
    return picture if picture.mode == mode else picture.convert(mode)
