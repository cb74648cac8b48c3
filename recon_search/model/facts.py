"""What is known of a backbone before it is trained, looked up once a process."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from recon_search.graph.analysis import Analysis, analyse
from recon_search.graph.calls import Reads, kind_of
from recon_search.model.backbone import create_backbone, feature_width, image_size
from recon_search.model.freezing import freeze
from recon_search.model.pyramid import Pyramid, find_pyramid
from recon_search.model.source import untrained
from recon_search.recipe import BackboneConfig
from recon_search.tasks.task import Task


@dataclass(frozen=True)
class Facts:
    """A backbone, whatever its weights.

    Attributes:
        config: its timm name and arguments.
        analysis: its graphs and layers.
        width: d of the features (B, d) that heads read.
        pyramid: what heads read that predict for every pixel, if there are such.
    """

    config: BackboneConfig
    analysis: Analysis
    width: int
    pyramid: Pyramid | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What a split file says of its backbone."""
        return {
            "name": self.config.name,
            "args": self.config.args,
            "features": self.config.features,
            "digest": self.analysis.digest,
        }

    @property
    def n_parameters(self) -> int:
        """Learned numbers, without heads."""
        return sum(parameter.numel() for parameter in self.analysis.trace.root.parameters())

    @property
    def n_frozen(self) -> int:
        """Those of them that are not trained."""
        parameters = self.analysis.trace.root.parameters()
        return sum(parameter.numel() for parameter in parameters if not parameter.requires_grad)


def facts_of(
    config: BackboneConfig,
    shape: Sequence[int],
    frozen: Sequence[str] = (),
    *,
    tasks: Sequence[Task] = (),
) -> Facts:
    """Create a backbone with random weights and follow it, once a process.

    Args:
        config: the backbone; its weights are not looked at.
        shape: of one image, (C, H, W); or (C,), of the size that the backbone is configured for.
        frozen: patterns of what is not trained (see `freeze`), which has no layers then.
        tasks: say whether heads read a vector, a pyramid, or some this and some that; without any
            they read a vector.

    Raises:
        BackboneError: timm does not know it or refuses its arguments, it cannot be followed, or it
            gives no vector for such an image.
        RecipeError: a pattern names nothing, or nothing is left to train.
    """
    reads = {task.name: task.reads for task in tasks}
    kind = kind_of([*reads.values()])
    key = tuple(reads.items()) if kind == "both" else kind
    return _facts_of(untrained(config).model_dump_json(), tuple(shape), tuple(frozen), key)


@functools.lru_cache(maxsize=8)
def _facts_of(
    config_json: str,
    shape: tuple[int, ...],
    frozen: tuple[str, ...],
    call: str | tuple[tuple[str, Reads], ...],
) -> Facts:
    config = BackboneConfig.model_validate_json(config_json)
    backbone = create_backbone(config, in_chans=shape[0])
    freeze(backbone, frozen)
    pyramid = None
    if call != "forward":
        shape = shape if len(shape) > 1 else (shape[0], *image_size(backbone, config))
        pyramid = find_pyramid(backbone, config.name, shape)
        shape = pyramid.fit(shape)
    width = feature_width(backbone, config, shape)
    generator = torch.Generator().manual_seed(0)
    example = torch.randn(2, *shape, generator=generator) if len(shape) > 1 else None
    levels = None if call == "forward" else config.levels
    known = analyse(
        backbone, example, call=call if isinstance(call, str) else dict(call), levels=levels
    )
    if pyramid is not None:
        pyramid = pyramid.at(known.trace.call.indices)
    return Facts(config, known, width, pyramid)
