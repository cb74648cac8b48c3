"""Labels of pixels move with their images: classes, depths and directions, each in its own way.

They are tv_tensors, (H, W) or (n, H, W), so that torchvision's functional transforms find the right
way: none is interpolated. A class stays one, and what is unknown stays unknown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from recon_search.errors import DataError
from recon_search.tasks.depth import Depth
from recon_search.tasks.normals import Normals
from recon_search.tasks.task import Task

Mask = tv_tensors.Mask
"""Classes, or yes and no."""


class DepthMap(tv_tensors.Mask):  # type: ignore[misc]
    """Depths: what is cut out and enlarged looks as many times nearer (MTAN's augmentation)."""


class InverseDepthMap(tv_tensors.Mask):  # type: ignore[misc]
    """Inverse depths: what is cut out and enlarged has as many times more of it."""


class NormalMap(tv_tensors.Mask):  # type: ignore[misc]
    """Directions (3, H, W), x to the right: mirrored, they point to the other side."""


@functional.register_kernel(functional.resized_crop, DepthMap)  # type: ignore[untyped-decorator]
def _zoom(
    depth: DepthMap,
    top: int,
    left: int,
    height: int,
    width: int,
    size: list[int],
    *_: Any,
    **__: Any,
) -> DepthMap:
    """Cut out: a half of each side is seen as large as the whole before, twice as near.

    Where the sides' shares differ, by their mean. To how many pixels it is brought does not count.
    """
    found, scale = _cut_out(depth, (top, left, height, width), size)
    return DepthMap(found / scale)


@functional.register_kernel(functional.resized_crop, InverseDepthMap)  # type: ignore[untyped-decorator]
def _zoom_inverse(
    depth: InverseDepthMap,
    top: int,
    left: int,
    height: int,
    width: int,
    size: list[int],
    *_: Any,
    **__: Any,
) -> InverseDepthMap:
    found, scale = _cut_out(depth, (top, left, height, width), size)
    return InverseDepthMap(found * scale)


def zoom(
    depth: DepthMap | InverseDepthMap, box: Sequence[int], size: Sequence[int], factor: float
) -> DepthMap | InverseDepthMap:
    """Cut out a box (top, left, height, width) that is seen so many times larger.

    Whole pixels show that only nearly: 128 / 1.2 are 106. Published code divides by the factor.
    """
    cut = functional.resized_crop_mask(depth.as_subclass(Tensor), *box, list(size))
    return DepthMap(cut / factor) if isinstance(depth, DepthMap) else InverseDepthMap(cut * factor)


def _cut_out(
    depth: Tensor, box: tuple[int, int, int, int], size: list[int]
) -> tuple[Tensor, float]:
    """Return what is seen of a map, and how many times larger."""
    plain = depth.as_subclass(Tensor)
    scale = math.sqrt(math.prod(plain.shape[-2:]) / (box[2] * box[3]))
    return functional.resized_crop_mask(plain, *box, size), scale


@functional.register_kernel(functional.horizontal_flip, NormalMap)  # type: ignore[untyped-decorator]
def _mirror(normals: NormalMap) -> NormalMap:
    found = normals.as_subclass(Tensor).flip(-1)
    found[0] = -found[0]
    return NormalMap(found)


def lay(
    tasks: Iterable[Task], targets: Mapping[str, Tensor], size: tuple[int, int]
) -> dict[str, Tensor]:
    """Lay the labels of pixels on their image; those of images stay as they are.

    Args:
        tasks: all.
        targets: by task.
        size: (H, W) of the image.

    Raises:
        DataError: a label has another size than its image.
    """
    found = dict(targets)
    for task in tasks:
        if task.reads == "pyramid":
            target = found[task.name]
            if target.ndim not in (2, 3) or tuple(target.shape[-2:]) != size:
                raise DataError(
                    f"The target of task '{task.name}' must have the size {size} of its image, got "
                    f"the shape {tuple(target.shape)}. Give both alike."
                )
            found[task.name] = _kind(task)(target)
    return found


def lift(targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return targets as plain tensors."""
    return {
        name: target.as_subclass(Tensor) if isinstance(target, tv_tensors.TVTensor) else target
        for name, target in targets.items()
    }


def _kind(task: Task) -> type[tv_tensors.Mask]:
    if isinstance(task, Normals):
        return NormalMap
    if isinstance(task, Depth) and task.zoom == "multiply":
        return InverseDepthMap
    return DepthMap if isinstance(task, Depth) else Mask
