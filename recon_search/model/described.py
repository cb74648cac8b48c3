"""What the `config.json` of a model directory may say, typed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, StrictInt, model_validator

from recon_search.data.transforms import SCALES
from recon_search.graph.calls import Reads
from recon_search.model.plain import LARGEST
from recon_search.recipe import WHOLE, CopyConfig
from recon_search.records import fit

Side = Annotated[StrictInt, Field(ge=1, le=LARGEST)]
Real = Annotated[float, Field(allow_inf_nan=False)]


class _Part(BaseModel):
    """Known keys are typed; whoever saves a model may add others."""

    model_config = ConfigDict(strict=True, extra="allow")


class _Input(_Part):
    shape: tuple[Side, Side, Side]
    mean: list[Real] | None = None
    std: list[Annotated[Real, Field(gt=0)]] | None = None
    scale: str = SCALES[255.0]
    resize: Literal["crop", "stretch"] = "crop"
    crop: Annotated[Real, Field(gt=0, le=1)] = 1.0
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"

    @model_validator(mode="after")
    def _check_channels(self) -> Self:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) not in (1, self.shape[0]):
                raise ValueError(f"{name} must have a value a channel, {self.shape[0]}")
        if self.scale not in SCALES.values():
            raise ValueError(f"scale must be one of {', '.join(map(repr, SCALES.values()))}")
        return self


class _Maps(_Part):
    reads: dict[str, Reads]
    levels: Annotated[list[Annotated[int, Field(ge=0, lt=LARGEST)]], Field(min_length=1)]
    multiple: Annotated[PositiveInt, Field(le=LARGEST)] = 1


class _Config(_Part):
    backbone: dict[str, Any] | None = None
    head: dict[str, Any] | None = None
    heads: dict[str, dict[str, Any]] = {}
    necks: dict[str, dict[str, Any]] = {}
    tasks: list[dict[str, Any]] | dict[str, PositiveInt] | None = None
    input: _Input | None = None
    maps: _Maps | None = None
    rotated: bool = False
    copies: CopyConfig = WHOLE


def check_config(config: Mapping[str, Any], path: Path) -> None:
    """Refuse a config whose known keys have other types or values than they may.

    Raises:
        ArtefactError: naming the first.
    """
    fit(_Config, dict(config), path, "A model's config.json", "Export the model again.")
