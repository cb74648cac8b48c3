"""`[backbone]` and `[head]`: the network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, field_validator

from recon_search.errors import nearest
from recon_search.imports import is_import_path
from recon_search.recipe.section import Section

WIDEST = 2**20
"""Numbers in features or in a hidden layer, at most: wider ones are mistakes and fill memory."""


class BackboneConfig(Section):
    """A timm model: its name, its arguments, and the width of the features the heads share.

    Tasks that predict for every pixel read a pyramid: `levels` are the indices of timm's
    intermediate features that make it, in order, negative ones from the end. Without it these are
    the last feature of each size; of a backbone whose features have one size, as of a ViT, four at
    even distances. What lies behind the last level is not run for such tasks.
    """

    name: str
    """A model of timm; `recon-search ls backbones` lists them."""

    args: dict[str, Any] = {}
    """What timm's `create_model` is called with."""

    features: int = Field(default=0, ge=0, le=WIDEST)
    """Width of the features, timm's `num_classes`; 0 takes the pooled ones."""

    weights: str | None = None
    """A local checkpoint to begin with, .safetensors; `recon-search convert` makes one."""

    pretrained: bool = False
    """Begin with timm's own weights, from its hub or the hub's cache."""

    levels: list[int] | None = Field(default=None, min_length=1)
    """Indices of timm's intermediate features that make the pyramid for tasks of pixels."""


DECODERS = ("fpn", "aspp")
"""Kinds of necks, and of heads, that read a pyramid of maps."""


def _unused_args(section: str, kind: str, args: dict[str, Any]) -> Iterator[str]:
    if args and not is_import_path(kind) and kind not in DECODERS:
        yield (
            f'`{section}.args` needs a `{section}.kind` like "package.module:name", got {args} for '
            f"'{kind}'. Leave them out."
        )


class NeckConfig(Section):
    """A hidden part that the heads of several tasks read through: an activation, then an MLP.

    For tasks that predict for every pixel a decoder, `fpn` (`args.finest`: the finest reduction
    that it reads, 4 by default) or `aspp` (`args.rates`: of dilation), `hidden` channels wide.
    Or one of one's own: `kind = "package.module:name"`, which is called with the width of the
    features, or the lists of channels and reductions of the maps, and `args`, and says by its
    output how wide it is.
    """

    kind: str = "mlp"
    """An MLP, a decoder of pixels, or one of one's own, as "package.module:name"."""

    activation: Literal["none", "relu", "gelu"] = "none"
    """Before the neck."""

    hidden: int = Field(default=128, gt=0, le=WIDEST)
    """Width, in features or channels."""

    args: dict[str, Any] = {}
    """Of a decoder, `finest` or `rates`; of a neck of one's own, what it is called with."""

    @field_validator("kind")
    @classmethod
    def _check_kind(cls, kind: str) -> str:
        if kind not in ("mlp", *DECODERS) and not is_import_path(kind):
            raise ValueError('must be "mlp", "fpn", "aspp" or "package.module:name"')
        return kind

    def broken_rules(self) -> Iterator[str]:
        """Arguments are for necks of one's own and decoders."""
        yield from _unused_args("neck", self.kind, self.args)


class HeadConfig(Section):
    """The head of a task: the features' activation, then a linear layer or an MLP.

    Of a task that predicts for every pixel these are convolutions of size 1 on the coarsest map;
    `fpn` and `aspp` put a decoder before them (see `NeckConfig`).
    Or a head of one's own: `kind = "package.module:name"`, which is called with the width of the
    features, or the lists of channels and reductions of the maps, the number of outputs and `args`.
    """

    kind: str = "linear"
    """A linear layer, an MLP, a decoder of pixels, or one of one's own, as
    "package.module:name"."""

    activation: Literal["none", "relu", "gelu"] = "none"
    """Of the features, before the head."""

    hidden: int = Field(default=128, gt=0, le=WIDEST)
    """Width of an MLP or of a decoder."""

    args: dict[str, Any] = {}
    """Of a decoder, `finest` or `rates`; of a head of one's own, what it is called with."""

    neck: str | None = None
    """One of `[necks]`; the head then reads what it gives."""

    @property
    def is_own(self) -> bool:
        """Whether the head is imported."""
        return is_import_path(self.kind)

    @field_validator("kind")
    @classmethod
    def _check_kind(cls, kind: str) -> str:
        if kind not in ("linear", "mlp", *DECODERS) and not is_import_path(kind):
            raise ValueError('must be "linear", "mlp", "fpn", "aspp" or "package.module:name"')
        return kind

    def broken_rules(self) -> Iterator[str]:
        """Arguments are for heads of one's own and decoders."""
        yield from _unused_args("head", self.kind, self.args)


class HeadsConfig(Section):
    """The heads of a network: one for all tasks, others by task, and their necks."""

    head: HeadConfig = HeadConfig()
    """Of tasks that have none of their own."""

    heads: dict[str, HeadConfig] = {}
    """Of single tasks."""

    necks: dict[str, NeckConfig] = {}
    """By name."""

    def of(self, task: str) -> HeadConfig:
        """Return the head of a task."""
        return self.heads.get(task, self.head)

    def describe(self, task: str) -> dict[str, Any]:
        """Return the head of a task as plain values: `head`, and `neck` if it reads through one."""
        head = self.of(task)
        neck = {} if head.neck is None else {"neck": self.necks[head.neck].model_dump()}
        return {"head": head.model_dump(), **neck}

    def broken_rules(self) -> Iterator[str]:
        """A neck that a head reads through must be there."""
        named = {"head": self.head}
        named |= {f"tasks.{task}.head": own for task, own in self.heads.items()}
        for section, head in named.items():
            if head.neck is not None and head.neck not in self.necks:
                yield (
                    f"`{section}.neck` must be one of [necks], got '{head.neck}', found "
                    f"{', '.join(self.necks) or 'none'}.{nearest(head.neck, self.necks)} Add "
                    f"[necks.{head.neck}]."
                )
