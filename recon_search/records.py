"""What a file must hold: values fitted to declared types, with one line for what does not fit."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from recon_search.errors import ArtefactError, shortened

T = TypeVar("T")

STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)
"""Of records: no further keys, and no value is taken for one of another type."""


class Record(BaseModel):
    """What a file holds."""

    model_config = STRICT


def fit(kind: type[T], value: Any, path: str | Path, what: str, advice: str) -> T:
    """Make a record of plain values.

    Args:
        kind: a dataclass or pydantic model, whose rules are checked.
        value: as read from JSON.
        path: names the file in the error.
        what: the file is, as "A comparison".
        advice: the next step.

    Raises:
        ArtefactError: naming the first key that does not fit, the rule and the value.
    """
    try:
        # Strict JSON mode takes lists for tuples, and nothing else lax.
        found: T = _adapter(kind).validate_json(json.dumps(value))  # type: ignore[arg-type]
        return found
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        n_more = error.error_count() - 1
        more = f" (and {n_more} more)" if n_more else ""
        raise ArtefactError(
            f"{what} must hold what it was written with, in {path} {_describe(dict(problem))}"
            f"{more}. {advice}"
        ) from None


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _describe(problem: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    where = f"`{place}` " if place else ""
    if problem["type"] == "missing":
        return f"{where}is missing"
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{where}is no key of it"
    message = shortened(" ".join(problem["msg"].removeprefix("Value error, ").split()))
    return (
        f"{where}breaks a rule: {message[:1].lower()}{message[1:]}, got {_short(problem['input'])}"
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
