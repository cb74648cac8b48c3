"""What every table of a recipe is: typed, frozen, with rules between its keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Seed = Annotated[int, Field(ge=0, lt=2**62)]
"""What torch and numpy take, and so they do the seeds that follow it."""

MOST_SEEDS, LARGEST = 1000, 1e6
"""Seeds and rates, at most: larger ones are mistakes, and end in memory or in overflow."""

Count = Annotated[int, Field(gt=0, le=10**9)]
Whole = Annotated[int, Field(ge=0, le=10**9)]
Rate = Annotated[float, Field(gt=0, le=LARGEST)]


class Section(BaseModel):
    """A table of a recipe: typed, frozen, strict. Rules between its keys are `broken_rules`."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def broken_rules(self) -> Iterator[str]:
        """Say what does not fit together, a sentence a rule; called on keys that are valid."""
        yield from ()

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        if broken := list(self.broken_rules()):
            raise PydanticCustomError("rules", "{broken}", {"broken": broken})
        return self
