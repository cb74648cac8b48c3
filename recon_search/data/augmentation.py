"""What happens to training images at random, drawn by (seed, epoch, index)."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment
from torch import Tensor
from torchvision import transforms as v1
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional
from torchvision.tv_tensors import TVTensor

from recon_search.artefact import digest
from recon_search.data.dense_transforms import DepthMap, InverseDepthMap, zoom
from recon_search.data.draws import Draws
from recon_search.data.transforms import Preparation, to_tensor
from recon_search.errors import RecipeError, in_one_line
from recon_search.recipe.data import AugmentConfig

ERASED_AREA, ERASED_RATIO = (0.02, 1 / 3), (0.3, 3.3)
"""Of random erasing (arXiv 1708.04896), as timm has them."""

WHOLE, SQUARE = (0.08, 1.0), (3 / 4, 4 / 3)
"""Of random crops, where the recipe names one of `scale` and `ratio` only."""


class Augmentation:
    """A random change of images, to be drawn in the order crop, flip, policy, colour, erasing.

    Args:
        config: `[data.augment]`.
        preparation: gives size and interpolation.

    Raises:
        RecipeError: timm does not know the policy.
    """

    def __init__(self, config: AugmentConfig, preparation: Preparation) -> None:
        self.config = config
        self._preparation = preparation
        self._draws = Draws()
        self._policy  # noqa: B018  # fails now rather than in a worker

    def __call__(
        self, image: Image.Image | Tensor, targets: Mapping[str, Any], key: tuple[int, ...]
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """Change an image, and with it what of the targets lies on its pixels (tv_tensors).

        Args:
            image: decoded, and fitted unless the configuration crops.
            targets: by task.
            key: seed, epoch, perhaps what else the sample is drawn by, and index.

        Returns:
            A tensor of the prepared size, and the targets.
        """
        with seeded(key, everything=self._policy is not None):
            moved = {name: own for name, own in targets.items() if isinstance(own, TVTensor)}
            for change in self._draw(image):
                image, moved = change(image), {name: change(own) for name, own in moved.items()}
            pixels = self._jitter(self._apply_policy(to_tensor(image)))
            return self._erase(pixels), {**targets, **moved}

    def _draw(self, image: Image.Image | Tensor) -> Iterator[Callable[[Any], Any]]:
        """Draw what changes the places of pixels: to be done to all that lies on the image."""
        config = self.config
        if config.zoom:
            factor = config.zoom[self._draws.below(len(config.zoom))]
            height, width = functional.get_size(image)
            sides = [int(side / factor + 1e-9) for side in (height, width)]
            corner = [
                self._draws.below(most - side + 1)
                for most, side in zip((height, width), sides, strict=True)
            ]
            yield self._crop(corner + sides, factor)
        elif config.crops:
            scale, ratio = config.scale or WHOLE, config.ratio or SQUARE
            height, width = functional.get_size(image)
            yield self._crop(self._draws.box((height, width), scale, ratio))
        if config.pad:
            place = [self._draws.below(2 * config.pad + 1) for _ in range(2)]
            size = self._preparation.size
            yield lambda each: functional.crop(functional.pad(each, [config.pad]), *place, *size)
        if config.flip and self._draws.chance(config.flip):
            yield functional.horizontal_flip

    def _crop(self, box: Sequence[int], factor: float | None = None) -> Callable[[Any], Any]:
        """Cut a box (top, left, height, width) out and bring it to the size of all.

        Args:
            box: to be cut out.
            factor: by which depths come nearer; None takes that of the box.
        """
        size, mode = self._preparation.size, InterpolationMode(self._preparation.interpolation)

        def change(each: Any) -> Any:
            if factor is not None and isinstance(each, DepthMap | InverseDepthMap):
                return zoom(each, box, size, factor)
            return functional.resized_crop(each, *box, list(size), mode, antialias=True)

        return change

    @cached_property
    def _jitter(self) -> v2.Transform:
        given = self.config.color_jitter
        if given is None:
            return v2.Identity()
        return v2.ColorJitter(*(given if isinstance(given, list) else [given] * 3))

    @cached_property
    def _policy(self) -> Any:
        """Timm's policy, None for none."""
        text = self.config.auto_augment
        if text is None:
            return None
        options = {
            "translate_const": int(min(self._preparation.size) * 0.45),
            "interpolation": getattr(Image.Resampling, self._preparation.interpolation.upper()),
        }
        known = {
            "rand": auto_augment.rand_augment_transform,
            "augmix": auto_augment.augment_and_mix_transform,
        }
        make = known.get(text.split("-")[0], auto_augment.auto_augment_transform)
        try:
            return make(text, options)
        except Exception as error:  # timm asserts
            raise RecipeError(
                f"`data.augment.auto_augment` must be a policy of timm, got {text!r} "
                f'({in_one_line(error)}). An example: "rand-m9-mstd0.5".'
            ) from None

    def _apply_policy(self, pixels: Tensor) -> Tensor:
        if self._policy is None:
            return pixels
        image = functional.to_pil_image(pixels)
        mode = image.mode
        return to_tensor(self._policy(image.convert("RGB")).convert(mode))

    def _erase(self, pixels: Tensor) -> Tensor:
        """Fill a random rectangle with noise."""
        share = self.config.random_erasing
        if not share or not self._draws.chance(share):
            return pixels
        top, left, height, width, noise = v1.RandomErasing.get_params(
            pixels, ERASED_AREA, ERASED_RATIO, None
        )
        if (height, width) == tuple(pixels.shape[1:]):
            return pixels  # no rectangle was found
        if pixels.dtype == torch.uint8:
            noise = torch.randint(256, noise.shape, dtype=torch.uint8)
        pixels = pixels.clone()
        pixels[:, top : top + height, left : left + width] = noise
        return pixels


@contextlib.contextmanager
def seeded(key: tuple[int, ...], *, everything: bool) -> Iterator[None]:
    """Draw from generators seeded by a key in the block; what others draw does not change.

    Args:
        key: whole numbers.
        everything: seeds Python's and NumPy's generators beside torch's, from which timm draws.
    """
    seed = int(digest(list(key))[:12], 16)
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    if everything:
        own, numpy = random.getstate(), np.random.get_state()
        random.seed(seed)
        np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        torch.default_generator.set_state(state)
        if everything:
            random.setstate(own)
            np.random.set_state(numpy)
