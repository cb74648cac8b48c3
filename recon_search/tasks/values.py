"""One or several numbers an image: regression in standard units, reported in the user's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from recon_search.errors import LabelError
from recon_search.tasks import arguments, losses, metrics
from recon_search.tasks.cells import entries, number, plain, rounded, show, text
from recon_search.tasks.meter import Meter

CRITERIA = ("mse", "mae", "huber")


@dataclass(frozen=True)
class Values:
    """Say one number, or several.

    Targets are float64 (B, n_values) in the user's units, nan where there is no label; outputs are
    (B, n_values) in standard units: of mean 0 and deviation 1 over the training part. So is the
    loss. A number counts as an entry: the loss is the mean over all entries that are known.

    Attributes:
        name: of the task.
        n_values: numbers an image.
        mean: of each number, by which it is standardised; 0 if not given.
        std: of each number, above 0; 1 if not given.
        weight: of its loss.
        metrics: those that delta_m is made of, given by their names, each the mean over the
            numbers: mae, rmse (in the user's units), r2 (nan without two different values).
        unit: of the numbers, as tables name it.
        criterion: what the loss is made of: mse, mae, or huber.
        huber_delta: error, in standard units, from which on huber is linear.
        separator: between the numbers of a cell of text.
        ignore: cells, and entries of cells, that are no label.

    Examples:
        >>> age = Values.fit("age", [20, 40, ""], unit="years")
        >>> age.mean, age.std
        ((30.0,), (10.0,))
        >>> age.predict(torch.tensor([[1.5]]))[""]
        [45.0]
        >>> age.loss(torch.tensor([[1.5], [0.0]]), torch.tensor([[45.0], [float("nan")]])).item()
        0.0
    """

    name: str
    n_values: int = 1
    mean: Any = ()
    std: Any = ()
    weight: float = 1.0
    metrics: Any = field(default=("mae",), hash=False)
    unit: str = ""
    criterion: Literal["mse", "mae", "huber"] = "mse"
    huber_delta: float = 1.0
    separator: str = "|"
    ignore: tuple[str, ...] = ()
    reads: ClassVar[Literal["vector"]] = "vector"

    def __post_init__(self) -> None:
        arguments.settle(self, metrics.VALUES)
        name, n = self.name, self.n_values
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            rule = "a whole number of at least 1"
            raise arguments.refusal(name, "n_values", rule, n, "Change it.")
        mean, std = plain(self.mean), plain(self.std)
        mean = (0.0,) * n if mean == () else mean
        std = (1.0,) * n if std == () else std
        arguments.put(self, "mean", arguments.numbers(name, "mean", mean, n, math.isfinite, ""))
        std = arguments.numbers(name, "std", std, n, lambda each: each > 0, "above 0")
        arguments.put(self, "std", std)
        arguments.unit(self)
        arguments.among(name, "criterion", self.criterion, CRITERIA)
        delta = self.huber_delta
        arguments.number(name, "huber_delta", delta, lambda each: each > 0, "above 0")
        arguments.separator(name, self.separator)

    @classmethod
    def fit(cls, name: str, cells: Iterable[Any], *, separator: str = "|", **options: Any) -> Self:
        """Make the task of the cells of the training part, whose mean and deviation it takes.

        Args:
            name: of the task.
            cells: in any order.
            separator: as the attribute.
            options: other attributes.

        Raises:
            LabelError: a cell holds no number, cells hold different numbers of numbers, there is no
                number, or one that is always the same.
            RecipeError: an option is unknown, or of no use.
        """
        arguments.separator(name, separator)
        ignored = arguments.ignored(options.get("ignore", ()))
        rows: list[list[float]] = []
        for cell in cells:
            row = _row(cell, separator, ignored, name)
            if row is not None:
                if rows and len(row) != len(rows[0]):
                    raise _uneven(name, len(rows[0]), cell)
                rows.append(row)
        moments = [_moments(name, column) for column in zip(*rows, strict=True)]
        if not moments:
            raise _empty(name)
        mean, std = zip(*moments, strict=True)
        own = {"n_values": len(mean), "mean": mean, "std": std, "separator": separator}
        return arguments.complete(cls, name, own, options, "separator")

    @property
    def n_outputs(self) -> int:
        """One number each."""
        return self.n_values

    @property
    def units(self) -> dict[str, str]:
        """Those of the numbers, but of r2, which has none."""
        return {name: "" if name == "r2" else self.unit for name in self.metrics}

    def target(self, cell: Any) -> Tensor:
        """Read the numbers of one sample."""
        row = _row(cell, self.separator, self.ignore, self.name)
        if row is None:
            row = [math.nan] * self.n_values
        if len(row) != self.n_values:
            raise _uneven(self.name, self.n_values, cell)
        return torch.tensor(row, dtype=torch.float64)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The criterion in standard units over the entries that are known."""
        mean, std = self._moments(target)
        target = target.reshape(output.shape)
        known = ~target.isnan()
        place = torch.where(known, (target.double() - mean) / std, 0.0).float()
        found = output.float()
        if self.criterion == "mse":
            each = F.mse_loss(found, place, reduction="none")
        elif self.criterion == "mae":
            each = F.l1_loss(found, place, reduction="none")
        else:
            each = F.huber_loss(found, place, reduction="none", delta=self.huber_delta)
        return losses.mean_of_known(each, known)

    def n_labels(self, target: Tensor) -> Tensor:
        """Number of entries that are known."""
        return (~target.isnan()).sum()

    def meter(self) -> Meter:
        """Its metrics, and the loss."""
        found = {name: metrics.Errors(name, *self._moments()) for name in self.metrics}
        return Meter(self.loss, self.n_labels, found)

    def predict(self, output: Tensor, *, every: bool = False) -> dict[str, list[Any]]:
        """Return the numbers in the user's units; of several a text, and a column for each."""
        mean, std = self._moments(output)
        rows = (output.detach().double() * std + mean).tolist()
        if self.n_values == 1:
            return {"": [row[0] for row in rows]}
        texts = [[str(rounded(number)) for number in row] for row in rows]
        found: dict[str, list[Any]] = {"": [self.separator.join(text) for text in texts]}
        for index in range(self.n_values):
            found[str(index + 1)] = [row[index] for row in rows]
        return found

    def spec(self) -> dict[str, Any]:
        """What `create_task` makes an equal task of."""
        return arguments.spec(self, "values", always=("name", "n_values"))

    def _moments(self, like: Tensor | None = None) -> tuple[Tensor, Tensor]:
        device = None if like is None else like.device
        mean = torch.tensor(self.mean, dtype=torch.float64, device=device)
        return mean, torch.tensor(self.std, dtype=torch.float64, device=device)


def _row(cell: Any, separator: str, ignored: Sequence[str], task: str) -> list[float] | None:
    """Return the numbers of a cell, nan for those that are no label; None if the cell is none."""
    if text(cell) in ignored:
        return None
    found = entries(cell, separator)
    if not found:
        return None
    return [math.nan if text(entry) in ignored else number(entry, task) for entry in found]


def _moments(task: str, column: Sequence[float]) -> tuple[float, float]:
    """Return mean and deviation of what is known, in whatever order it stands."""
    known = [value for value in column if not math.isnan(value)]
    if not known:
        raise _empty(task)
    mean = math.fsum(known) / len(known)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / len(known))
    if std <= 1e-12 * max(map(abs, known)):
        least, most = min(known), max(known)
        found = f"{least:g} in all" if least == most else f"no more than {most - least:g} between"
        raise LabelError(
            f"Task '{task}' must have numbers that differ in the training part, found {found} "
            f"{len(known)} cells that have one. Leave the task out"
            + (", or subtract what they share." if least < most else ".")
        )
    return mean, std


def _uneven(task: str, expected: int, cell: Any) -> LabelError:
    error = LabelError(
        f"Task '{task}' must be given {expected} number{'s' * (expected > 1)} a cell, found "
        f"{show(cell)}. Write as many everywhere; an entry may be empty."
    )
    error.cell = cell
    return error


def _empty(task: str) -> LabelError:
    return LabelError(
        f"Task '{task}' must have numbers in the training part, found none. Leave the task out."
    )
