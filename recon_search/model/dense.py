"""Heads that predict for every pixel, and the decoders that several of them may share.

Both read the maps of a pyramid, from torchvision's parts. They have no BatchNorm: a shared decoder
that branches feed differently would mix their statistics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.segmentation import deeplabv3
from torchvision.ops import FeaturePyramidNetwork

from recon_search.errors import RecipeError

FINEST = 4
"""The finest reduction that an FPN reads if it is not told another."""


class FPN(nn.Module):
    """A light feature pyramid network: all maps in one, as large as the finest that it reads.

    Lin et al., arXiv 1612.03144, whose maps are summed as in Kirillov et al., arXiv 1901.02446.

    Args:
        channels: of each map.
        reductions: of each map.
        hidden: channels of the one.
        finest: maps of smaller reductions are not read, unless there is no other.

    Attributes:
        channels: of what it gives: one entry.
        reductions: likewise.
    """

    def __init__(
        self,
        channels: Sequence[int],
        reductions: Sequence[int],
        hidden: int = 128,
        finest: int = FINEST,
    ) -> None:
        super().__init__()
        if isinstance(finest, bool) or not isinstance(finest, int) or finest < 1:
            raise RecipeError(f"`args.finest` must be a whole number from 1, got {finest!r}.")
        order = sorted(range(len(reductions)), key=reductions.__getitem__)
        self.levels = [i for i in order if reductions[i] >= finest] or order[-1:]
        first = reductions[self.levels[0]]
        self.factors = [reductions[i] // first for i in self.levels]
        if any(reductions[i] % first for i in self.levels):
            raise RecipeError(
                "An fpn needs maps whose reductions are multiples of the finest, got "
                f"{list(reductions)}. Choose aspp or linear."
            )
        self.fpn = FeaturePyramidNetwork([channels[i] for i in self.levels], hidden)
        self.channels = [hidden]
        self.reductions = [first]

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Merge maps (B, C, h, w) into a list of one, (B, hidden, h, w)."""
        read = {str(place): maps[level] for place, level in enumerate(self.levels)}
        merged = list(self.fpn(read).values())
        height, width = merged[0].shape[-2:]
        total = merged[0]
        for each, factor in zip(merged[1:], self.factors[1:], strict=True):
            total = total + enlarge(each, factor)[..., :height, :width]
        return [functional.relu(total)]


class ASPP(nn.Module):
    """DeepLab's decoder: the last map seen at several scales.

    Chen et al., arXiv 1706.05587.

    Args:
        channels: of each map.
        reductions: of each map.
        hidden: channels of the one it gives.
        rates: of dilation; if None those of the paper, 6, 12 and 18 at a reduction of 16, and in
            proportion at another.

    Attributes:
        channels: of what it gives: one entry.
        reductions: likewise.
    """

    def __init__(
        self,
        channels: Sequence[int],
        reductions: Sequence[int],
        hidden: int = 128,
        rates: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if rates is None:
            rates = [max(1, 16 * rate // reductions[-1]) for rate in (6, 12, 18)]
        if not rates or any(isinstance(r, bool) or not isinstance(r, int) or r < 1 for r in rates):
            raise RecipeError(f"`args.rates` must be whole numbers from 1, got {rates!r}.")
        self.aspp = _without_batch_norms(deeplabv3.ASPP(channels[-1], list(rates), hidden))
        self.merge = nn.Sequential(
            nn.Conv2d(hidden, hidden, 3, padding=1, bias=False), _group_norm(hidden), nn.ReLU()
        )
        self.channels = [hidden]
        self.reductions = [reductions[-1]]

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return a list of one map (B, hidden, h, w), of the last one's size."""
        return [self.merge(self.aspp(maps[-1]))]


class PixelHead(nn.Module):
    """Convolutions of size 1 on the last map, the coarsest, enlarged to the image.

    Args:
        channels: of each map.
        reductions: of each map.
        n_outputs: numbers a pixel.
        hidden: channels between two convolutions; 0: there is one.
        activation: comes first.
    """

    def __init__(
        self,
        channels: Sequence[int],
        reductions: Sequence[int],
        n_outputs: int,
        hidden: int,
        activation: nn.Module,
    ) -> None:
        super().__init__()
        width = channels[-1]
        parts: list[nn.Module] = [activation]
        if hidden:
            parts += [nn.Conv2d(width, hidden, 1), nn.ReLU()]
            width = hidden
        self.layers = nn.Sequential(*parts, nn.Conv2d(width, n_outputs, 1))
        self.reduction = reductions[-1]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return outputs (B, n_outputs, H, W); H and W may exceed the image's by part of a cell."""
        return enlarge(self.layers(maps[-1]), self.reduction)


DECODERS = {"fpn": FPN, "aspp": ASPP}
"""Decoders by their name in recipes."""


def create_decoder(
    kind: str,
    channels: Sequence[int],
    reductions: Sequence[int],
    hidden: int,
    args: dict[str, Any],
) -> FPN | ASPP:
    """Create a decoder by its name.

    Raises:
        RecipeError: it does not take such arguments.
    """
    known = {"fpn": {"finest"}, "aspp": {"rates"}}[kind]
    if strange := sorted(set(args) - known):
        raise RecipeError(
            f"An {kind} takes `args.{'` and `args.'.join(sorted(known))}`, got '{strange[0]}'. "
            "Leave it out."
        )
    decoder: FPN | ASPP = DECODERS[kind](channels, reductions, hidden, **args)
    return decoder


def enlarge(maps: Tensor, factor: int) -> Tensor:
    """Enlarge maps (B, C, h, w) by a whole factor, bilinearly: every cell covers its own pixels."""
    if factor == 1:
        return maps
    size = [side * factor for side in maps.shape[-2:]]
    return functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def try_out(
    module: nn.Module, channels: Sequence[int], reductions: Sequence[int]
) -> tuple[Any, int]:
    """Call a module on maps of zeros; return what it gave and the side of their image."""
    side = 2 * math.lcm(*reductions)
    zeros = [
        torch.zeros(2, c, side // r, side // r) for c, r in zip(channels, reductions, strict=True)
    ]
    is_training = module.training
    with torch.no_grad():
        given = module.eval()(zeros)
    module.train(is_training)
    return given, side


def _group_norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(width, max(1, width // 8)), width)


def _without_batch_norms(module: nn.Module) -> nn.Module:
    """Put group norms in the place of batch norms."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, _group_norm(child.num_features))
        else:
            _without_batch_norms(child)
    return module
