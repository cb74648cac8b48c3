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

    flip: float = Field(default=0.0, ge=0, le=1)
    """Probability that an image is mirrored, left to right."""

    pad: int = Field(default=0, ge=0)
    """Pixels of black around the image, out of which its own size is cut at random."""

    scale: tuple[float, float] | None = None
    """Least and largest share of the area that a random crop shows."""

    ratio: tuple[float, float] | None = None
    """Least and largest width to height of a random crop."""

    zoom: list[Annotated[float, Field(ge=1)]] = []
    """One of these is drawn: 1.5 shows 2/3 of each side."""

    color_jitter: float | list[float] | None = None
    """Strength, one for all or of brightness, contrast, saturation and perhaps hue."""

    auto_augment: str | None = None
    """A policy of timm, such as "rand-m9-mstd0.5"."""

    random_erasing: float = Field(default=0.0, ge=0, le=1)
    """Probability that a rectangle of the image is erased."""

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
    """A built-in data set, or a reader: `table`, `image-folder`, `parquet`, `arrays`, `factory`."""

    root: str | None = None
    """Folder of the files; `--data-root` overrides it."""

    download: bool = False
    """Fetch the IDX files of MNIST and Fashion-MNIST that are missing."""

    train: int | None = Field(default=None, gt=1)
    """Pairs or scenes to train on, of composed data; the set's own number if not given."""

    validation: int | None = Field(default=None, gt=0)
    """Pairs or scenes to choose by, of composed data."""

    test: int | None = Field(default=None, gt=0)
    """Pairs or scenes to judge by, of composed data."""

    canvas: int | None = Field(default=None, ge=8)
    """Side of a composed image in pixels; 24, 36 or 64 by the set if not given."""

    seed: Seed = 0
    """Of how data are composed, or cut into parts."""

    # name = "table", "image-folder", "parquet", "arrays"
    file: str | None = None
    """The table, CSV or Parquet, below the root or anywhere; of Office sets the folder of lists."""

    image: str | None = None
    """Column with images or with their paths below the root; of arrays the images' folder."""

    split: str | None = None
    """Column that says train, validation or test."""

    ratio: tuple[Share, Share, Share] | None = None
    """Shares of train, validation and test of what is cut, where no column or folder says."""

    group: str | None = None
    """Column; samples that are equal there stay in one part."""

    missing: list[str] = []
    """Cells that are no label, beside empty ones and nan."""

    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    """Between the columns of a CSV file; read off its header if not given."""

    own_batches: bool = False
    """A step takes a batch of each task, of samples that have its label."""

    # name = "nyuv2", "cityscapes", "celeba", "chestxray14", "pascal-context"
    tasks: list[str] = []
    """Those of the data set's tasks that are learned; all where it is empty."""

    # name = "factory"
    factory: str | None = None
    """Function that returns a `TaskData`, as "package.module:function"."""

    args: dict[str, Any] = {}
    """What the factory is called with."""

    # images
    image_size: tuple[Side, Side] | None = None
    """Height and width that every image is brought to; image files need it."""

    channels: Literal[1, 3] = 3
    """Of image files: grey or RGB."""

    resize: Literal["crop", "stretch"] = "crop"
    """Keep the shape and cut the edges off, or stretch."""

    crop: float = Field(default=1.0, gt=0, le=1)
    """Share of each side, in the middle, that "crop" keeps."""

    interpolation: Literal["auto", "nearest", "bilinear", "bicubic"] = "auto"
    """By which images are resized; auto: as the backbone's weights had it, else bilinear."""

    statistics: Literal["auto", "data", "timm"] = "auto"
    """Mean and deviation of images; auto: timm's where the backbone begins with weights, else the
    data's."""

    augment: AugmentConfig = AugmentConfig()
    """What happens to training images at random."""

    # loading; changes no result
    workers: int | None = Field(default=None, ge=0)
    """Processes that read images, for each training; up to 8 for a GPU, else none."""

    cache: Literal["auto", "memory", "device", "none"] = "auto"
    """Where decoded images are kept; auto: where they fit. Changes no result."""

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
    """What is learned: `classes`, `binary`, `labels`, `values`, `segments`, `depth`, `normals`,
    `edges`, or one by import path."""

    target: str | Annotated[list[str], Field(min_length=1)] | None = None
    """Column or columns, folder or key of the labels; the task's own name if not given."""

    head: HeadConfig | None = None
    """Head of this task; without it `[head]`."""

    @property
    def options(self) -> dict[str, Any]:
        """What the kind is made with, such as `weight`, `metrics` and `classes`."""
        return dict(self.model_extra or {})
