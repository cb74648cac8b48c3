"""From an image as it is read to a tensor of the network's size; for training at random.

`Preparation` depends on the image alone, so its result can be kept; `Augmentation` is drawn anew
every epoch. Both are made of torchvision's transforms v2, which transform masks along with images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from recon_search.data.pictures import convert
from recon_search.data.turning import turn_upright
from recon_search.errors import DataError

SCALES = {255.0: "pixels / 255, then (x - mean) / std", 1.0: "(x - mean) / std"}
"""How a model directory words what stored values are divided by."""

Mode = Literal["crop", "stretch"]


@dataclass(frozen=True)
class Pretraining:
    """How the images were made ready that a backbone's weights were trained on.

    Attributes:
        mean: of each channel of RGB images in [0, 1].
        std: of each channel.
        interpolation: by which they were resized.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"


@dataclass(frozen=True)
class Preparation:
    """Bring images to one size and number of channels; nothing is random.

    Attributes:
        size: height and width.
        channels: 1 or 3 of PIL images; of tensors as many as they have.
        resize: "crop" scales until the middle covers `size` and cuts the rest off; "stretch"
            changes the sides' ratio instead.
        crop: share of the shorter side that "crop" keeps.
        interpolation: nearest, bilinear or bicubic; with antialiasing.
        is_strict: tensors must have this size already.
        dtype: uint8 of images in levels from 0 to 255, float32 of tensors that are taken as they
            are.
    """

    size: tuple[int, int]
    channels: int
    resize: Mode = "crop"
    crop: float = 1.0
    interpolation: str = "bilinear"
    is_strict: bool = False
    dtype: torch.dtype = torch.uint8

    def decode(self, image: Any) -> Image.Image | Tensor:
        """Read an image's pixels: upright, in the wanted channels.

        Raises:
            DataError: it is no image, or a tensor of another kind than (channels, H, W).
        """
        is_levels = self.dtype == torch.uint8
        if is_levels and isinstance(image, Image.Image):
            return decode(image, self.channels)
        if not isinstance(image, Tensor) or image.dtype != self.dtype:
            wanted = "a PIL image or a tensor of uint8" if is_levels else "a tensor of float32"
            raise DataError(
                f"An image must be {wanted}, as the first one is, got "
                f"{getattr(image, 'dtype', type(image).__name__)}. Make all alike."
            )
        if image.ndim != 3 or len(image) != self.channels:
            raise DataError(
                f"An image's tensor must have the shape ({self.channels}, H, W), got "
                f"{tuple(image.shape)}. Make all alike."
            )
        if self.is_strict and tuple(image.shape[1:]) != self.size:
            raise DataError(
                f"An image's tensor must have the shape {(self.channels, *self.size)} of the first "
                f"one, got {tuple(image.shape)}. Set data.image_size to bring all to one size."
            )
        return image

    def fit(self, image: Image.Image | Tensor) -> Tensor:
        """Resize what `decode` returned; a tensor (channels, *size)."""
        return to_tensor(self.bring(image))

    def bring(self, image: Any) -> Any:
        """Bring to its size what `decode` returned, or what lies on it (a tv_tensor)."""
        height, width = functional.get_size(image)
        if (height, width) == self.size:
            return image
        image = resize(image, self.scaled(height, width), self.interpolation)
        return image if self.resize == "stretch" else functional.center_crop(image, list(self.size))

    def scaled(self, height: int, width: int) -> tuple[int, int]:
        """Return the size to which `bring` scales an image, whose middle it then cuts out."""
        is_fixed = self.resize == "stretch" or (height, width) == self.size
        return self.size if is_fixed else self._covering(height, width)

    def spec(self) -> dict[str, Any]:
        """What `prepare` reads of it, beside shape and normalisation."""
        return {"resize": self.resize, "crop": self.crop, "interpolation": self.interpolation}

    def _covering(self, height: int, width: int) -> tuple[int, int]:
        """The size with the image's ratio that just covers what is cut out."""
        least = [math.floor(side / self.crop) for side in self.size]
        if width * least[0] >= height * least[1]:
            return least[0], max(least[1], int(least[0] * width / height))
        return max(least[0], int(least[1] * height / width)), least[1]


def decode(image: Image.Image, channels: int) -> Image.Image:
    """Read a PIL image's pixels, upright as its camera says, in grey (1) or RGB (3)."""
    try:
        image.load()
    except BaseException:
        image.close()
        raise
    return convert(turn_upright(image), "An image", channels)


def resize(
    image: Image.Image | Tensor, size: tuple[int, int], interpolation: str
) -> Image.Image | Tensor:
    """Scale an image to a size (H, W), with antialiasing."""
    mode = InterpolationMode(interpolation)
    return cast("Tensor", functional.resize(image, list(size), mode, antialias=True))


def to_tensor(image: Image.Image | Tensor) -> Tensor:
    """Return an image's pixels (C, H, W); of a PIL image, which is grey or RGB, as uint8."""
    if isinstance(image, Tensor):
        return image
    # As torchvision's pil_to_tensor, without the copies that NumPy makes on the way.
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, -1).permute(2, 0, 1)


def prepare(image: Image.Image | Tensor, config: Mapping[str, Any]) -> Tensor:
    """Make one image ready for a model, as it was done in training.

    Args:
        image: a PIL image, or a tensor (C, H, W) as training had them.
        config: `config["input"]` of the model.

    Returns:
        A float32 tensor of the shape that the model takes, without the batch.

    Raises:
        DataError: it is no image, or has another number of channels.
    """
    preparation, scale = preparation_of(config), _scale(config)
    mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
    return (preparation.fit(preparation.decode(image)).float() / scale - mean) / std


def preparation_of(config: Mapping[str, Any]) -> Preparation:
    """Return how images are brought to a model's size, given `config["input"]` of it."""
    channels, height, width = config["shape"]
    return Preparation(
        (height, width),
        channels,
        dtype=torch.uint8 if _scale(config) > 1 else torch.float32,
        **{key: config[key] for key in ("resize", "crop", "interpolation") if key in config},
    )


def _scale(config: Mapping[str, Any]) -> float:
    return {text: scale for scale, text in SCALES.items()}[config["scale"]]
