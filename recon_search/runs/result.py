"""What a training has given."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recon_search import artefact
from recon_search.errors import ArtefactError, in_one_line
from recon_search.tasks.task import Metrics

FILE, HISTORY = "result.json", "metrics.jsonl"


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

    def history(self) -> list[dict[str, Any]]:
        """Read the record of every epoch (see `fit`).

        Raises:
            ArtefactError: the file is missing or damaged, or is not of this result.
        """
        path = self.directory / HISTORY
        try:
            text = path.read_text(encoding="utf-8")
            records: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
            numbers = [record["epoch"] for record in records]
            is_whole = numbers == list(range(1, len(records) + 1))
            # As text, in which what is no number equals itself.
            known = [json.dumps(record["validation"], sort_keys=True) for record in records]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ArtefactError(
                f"A result needs the record of its epochs, could not read {path} "
                f"({in_one_line(error)}). Delete its folder to train anew."
            ) from None
        if not is_whole or json.dumps(self.validation, sort_keys=True) not in known:
            raise ArtefactError(
                f"A result needs the record of all its epochs, {path} holds {len(records)} and not "
                "the one that was kept. Delete its folder to train anew."
            )
        return records

    def as_json(self) -> dict[str, Any]:
        """Plain values, without the folder."""
        values = {**vars(self), "tasks": list(self.tasks)}
        del values["directory"]
        return values if self.test is not None else {**values, "test": None}

    def save(self) -> None:
        """Write `result.json` into the training's folder: from now on it is done."""
        artefact.write_json(self.directory / FILE, self.as_json())

    @staticmethod
    def is_in(directory: Path) -> bool:
        """Whether a folder's training is done."""
        return (directory / FILE).is_file()

    @classmethod
    def load(cls, directory: Path) -> Result | None:
        """Read a folder's result; None where the training is not done.

        Raises:
            ArtefactError: the file is damaged.
        """
        path = directory / FILE
        if not cls.is_in(directory):
            return None
        values = artefact.read_json(path, "result")
        try:
            own = {name: values[name] for name in ("method", "seed", "n_parameters", "flops")}
            return cls(
                tasks=tuple(values["tasks"]),
                validation=dict(values["validation"]),
                seconds=float(values["seconds"]),
                directory=directory,
                test=values.get("test"),
                **own,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ArtefactError(
                f"A result must name what was trained and its metrics, {path} does not "
                f"({type(error).__name__}: {error}). Delete its folder to train anew."
            ) from None
