"""What a training has given."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from recon_search import artefact, json_text
from recon_search.errors import ArtefactError, in_one_line
from recon_search.records import Record, fit
from recon_search.tasks.task import Metrics

FILE, HISTORY = "result.json", "metrics.jsonl"
FORMAT = "recon-search/result/1"


@dataclass(frozen=True)
class Result:
    """The outcome of one training, whose folder holds the model and its history.

    Attributes:
        tasks: names of those learned together.
        method: by which it was trained.
        seed: of initialisation and batches.
        n_parameters: heads included.
        flops: of one image's forward pass for all tasks.
        validation: metrics after the epoch that was kept, the last or the best.
        seconds: that it took.
        directory: its folder.
        test: metrics on test data; None where nobody has asked yet.
        epochs: that it lasted; None where it was not kept yet.
    """

    tasks: tuple[str, ...]
    method: str
    seed: int
    n_parameters: int
    flops: int
    validation: Metrics
    seconds: float
    directory: Path
    test: Metrics | None = None
    epochs: int | None = None

    def history(self) -> list[dict[str, Any]]:
        """Read the record of every epoch (see `fit`).

        Raises:
            ArtefactError: the file is missing or damaged, or is not of this result.
        """
        path = self.directory / HISTORY
        try:
            lines = path.read_bytes().splitlines()
            records = [json_text.parse(line, finite=False) for line in lines]
            known = [(record["validation"], record.get("epoch")) for record in records]
            numbers = [epoch or n for n, (_, epoch) in enumerate(known, start=1)]
        except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
            raise ArtefactError(
                f"A result needs the record of its epochs, could not read {path} "
                f"({in_one_line(error)}). Delete its folder to train anew."
            ) from None
        if numbers != list(range(1, (self.epochs or len(numbers)) + 1)) or not numbers:
            raise ArtefactError(
                f"A result needs the record of all its {self.epochs or ''} epochs, {path} holds "
                f"{len(records)}. Delete its folder to train anew."
            )
        return records

    def as_json(self) -> dict[str, Any]:
        """Plain values, without the folder."""
        values = {**vars(self), "tasks": list(self.tasks)}
        del values["directory"]
        return values if self.test is not None else {**values, "test": None}

    def save(self) -> None:
        """Write `result.json` into the training's folder: from now on it is done."""
        artefact.write_json(self.directory / FILE, {"format": FORMAT, **self.as_json()})

    @staticmethod
    def is_in(directory: Path) -> bool:
        """Whether a folder's training is done."""
        return os.path.lexists(directory / FILE)

    @classmethod
    def load(cls, directory: Path) -> Result | None:
        """Read a folder's result; None where the training is not done.

        Raises:
            ArtefactError: the file is damaged.
        """
        path = directory / FILE
        if not cls.is_in(directory):
            return None
        values = artefact.read_object(path, "result", FORMAT, None, finite=False)
        values = {key: value for key, value in values.items() if key in _Kept.model_fields}
        found = fit(_Kept, values, path, "A result", "Delete its folder to train anew.")
        return cls(**dict(found), directory=directory)


class _Kept(Record):
    """What `result.json` holds, beside its format."""

    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    method: str
    seed: NonNegativeInt
    n_parameters: NonNegativeInt
    flops: NonNegativeInt
    validation: dict[str, dict[str, float]]
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    test: dict[str, dict[str, float]] | None = None
    epochs: PositiveInt | None = None

    @model_validator(mode="after")
    def _check_tasks(self) -> Self:
        for part in (self.validation, self.test):
            if part is not None and not set(part) <= set(self.tasks):
                raise ValueError(f"metrics must be of its tasks, {', '.join(self.tasks)}")
        return self
