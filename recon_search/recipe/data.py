"""`[data]` and `[tasks]`: what is learned, and from what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator

from recon_search.imports import is_import_path
from recon_search.recipe.network import HeadConfig
from recon_search.recipe.section import Section, Seed

Side = Annotated[int, Field(gt=0, le=2**14)]
Share = Annotated[float, Field(gt=0, lt=1)]

ARRAYS = ("nyuv2", "cityscapes")
BENCHMARKS = (*ARRAYS, "celeba", "chestxray14", "pascal-context")
"""Data sets of papers that are read from files; the first have the layout of arrays."""
OFFICES = ("office-home", "office-31")

READ_BY = {
    "file": ("table", "parquet", *OFFICES),
    "image": ("table", "parquet", "arrays"),
    "split": ("table", "parquet"),
    "ratio": (
        *("table", "image-folder", "parquet", "arrays", *ARRAYS, *BENCHMARKS[3:]),
        *(*OFFICES, "cifar100-superclasses"),
    ),
    "group": ("table", "parquet"),
    "missing": ("table", "parquet"),
    "delimiter": ("table",),
    "tasks": BENCHMARKS,
    "own_batches": ("table", "image-folder", "parquet"),
}
"""Keys that data of some names alone read."""


class AugmentConfig(Section):
    """What happens to training images at random; nothing that is not named."""

    flip: float = Field(default=0.0, ge=0, le=1)  # probability of a horizontal flip
    pad: int = Field(default=0, ge=0)  # pixels of black around the image, of which its size is cut
    scale: tuple[float, float] | None = None  # of a random crop: share of the image's area
    ratio: tuple[float, float] | None = None  # of a random crop: width to height
    zoom: list[Annotated[float, Field(ge=1)]] = []  # one is drawn: 1.5 shows 2/3 of each side
    color_jitter: float | list[float] | None = None  # brightness, contrast, saturation[, hue]
    auto_augment: str | None = None  # timm's, such as "rand-m9-mstd0.5"
    random_erasing: float = Field(default=0.0, ge=0, le=1)  # probability

    @property
    def is_random(self) -> bool:
        """Whether anything happens."""
        return self != AugmentConfig()

    @property
    def crops(self) -> bool:
        """Whether images are cropped at random."""
        return self.scale is not None or self.ratio is not None or bool(self.zoom)

    def broken_rules(self) -> Iterator[str]:
        """One crop; ranges are ordered and positive; jitter is one number, or three or four."""
        if self.pad and self.crops:
            yield (
                "`data.augment.pad` and random crops by `scale` and `ratio` exclude each other, "
                f"got {self.pad}. Drop one."
            )
        for key, found in (("scale", self.scale), ("ratio", self.ratio)):
            if found is not None and not 0 < found[0] <= found[1]:
                yield (
                    f"`data.augment.{key}` must be two positive numbers in order, got "
                    f"{list(found)}. Change it."
                )
        if self.zoom and not (self.scale is None and self.ratio is None):
            yield (
                f"`data.augment.zoom` and random crops by `scale` and `ratio` exclude each other, "
                f"got {self.zoom}. Drop one."
            )
        if self.scale is not None and self.scale[1] > 1:
            yield (
                "`data.augment.scale` must be shares of the image's area, at most 1, got "
                f"{list(self.scale)}. Lower it."
            )
        jitter = self.color_jitter
        given = jitter if isinstance(jitter, list) else [] if jitter is None else [jitter] * 3
        wrong_hue = len(given) == 4 and given[3] > 0.5
        if jitter is not None and (len(given) not in (3, 4) or min(given) < 0 or wrong_hue):
            yield (
                "`data.augment.color_jitter` must be one number, or three (brightness, contrast, "
                f"saturation), or four (and hue, at most 0.5), none below 0, got {jitter}. "
                "Change it."
            )


class DataConfig(Section):
    """What is learned from: a data set by name, its parts, and how its images are made ready."""

    name: str
    root: str | None = None
    download: bool = False
    train: int | None = Field(default=None, gt=1)
    validation: int | None = Field(default=None, gt=0)
    test: int | None = Field(default=None, gt=0)
    canvas: int | None = Field(default=None, ge=8)
    seed: Seed = 0
    # name = "table", "image-folder", "parquet", "arrays"
    file: str | None = None  # table, CSV or Parquet: below the root, or anywhere; folder of lists
    image: str | None = None  # column with images, or their paths below the root; folder of arrays
    split: str | None = None  # column with train, validation or test
    ratio: tuple[Share, Share, Share] | None = (
        None  # of what is cut: where no column or folder says
    )
    group: str | None = None  # column; samples that are equal there stay in one part
    missing: list[str] = []  # cells that are no label, beside empty ones and nan
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)  # None: see the header
    own_batches: bool = False  # a step is a batch of each task, of samples that have its labels
    # name = "nyuv2", "cityscapes", "celeba", "chestxray14", "pascal-context"
    tasks: list[str] = []  # of those that the data set brings: what is learned; empty: all
    # name = "factory"
    factory: str | None = None  # "package.module:function", which returns a TaskData
    args: dict[str, Any] = {}  # that it is called with
    # images
    image_size: tuple[Side, Side] | None = None  # height and width
    channels: Literal[1, 3] = 3  # of image files: grey or RGB
    resize: Literal["crop", "stretch"] = "crop"
    crop: float = Field(default=1.0, gt=0, le=1)  # the middle of the image that "crop" keeps
    interpolation: Literal["auto", "nearest", "bilinear", "bicubic"] = "auto"
    statistics: Literal["auto", "data", "timm"] = "auto"  # of normalisation; auto: see README
    augment: AugmentConfig = AugmentConfig()
    # loading; changes no result
    workers: int | None = Field(default=None, ge=0)  # that read images; up to 8 for a GPU, else 0
    cache: Literal["auto", "memory", "device", "none"] = "auto"

    @field_validator("factory")
    @classmethod
    def _check_factory(cls, factory: str | None) -> str | None:
        if factory is not None and not is_import_path(factory):
            raise ValueError('must be "package.module:function"')
        return factory

    def broken_rules(self) -> Iterator[str]:
        """Keys are of use to the data; shares add up; a factory is named where one is used."""
        for key, names in READ_BY.items():
            if self.name not in names and getattr(self, key) not in (None, [], False):
                yield (
                    f"`data.{key}` is for {' and '.join(names)} data, got {getattr(self, key)!r} "
                    f"for '{self.name}'. Remove it."
                )
        if self.ratio is not None and abs(sum(self.ratio) - 1) > 1e-6:
            yield (
                f"`data.ratio` must add up to 1, got {list(self.ratio)}, which add up to "
                f"{sum(self.ratio):g}. Change it."
            )
        if (self.name == "factory") != (self.factory is not None):
            yield (
                '`data.name` = "factory" and `data.factory` need each other, got '
                f'"{self.name}" and {self.factory!r}. Set both, or neither.'
            )
        if self.args and self.factory is None:
            yield f"`data.args` are for a `data.factory`, got {self.args} without one. Remove them."


class TaskConfig(Section):
    """One task: its kind, where its labels are, its head, and options of the kind.

    Of data that brings its tasks with it, `kind` and `target` are known; a table of that name
    changes options of the task, such as its weight, or its head.
    """

    model_config = ConfigDict(extra="allow")

    kind: str | None = None
    target: str | Annotated[list[str], Field(min_length=1)] | None = (
        None  # column (or several), folder or key; the task's own name by default
    )
    head: HeadConfig | None = None  # without it: `[head]`

    @property
    def options(self) -> dict[str, Any]:
        """What the kind is made with, such as `weight`, `metrics` and `classes`."""
        return dict(self.model_extra or {})
