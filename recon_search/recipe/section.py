"""What every table of a recipe is: typed, frozen, with rules between its keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A table of a recipe: typed, frozen, strict. Rules between its keys are `broken_rules`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def broken_rules(self) -> Iterator[str]:
        """Say what does not fit together, a sentence a rule; called on keys that are valid."""
        yield from ()

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        if broken := list(self.broken_rules()):
            raise PydanticCustomError("rules", "{broken}", {"broken": broken})
        return self
