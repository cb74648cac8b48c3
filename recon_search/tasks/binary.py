"""Yes or no: binary cross-entropy on one score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from recon_search.errors import LabelError
from recon_search.tasks import arguments, losses, metrics
from recon_search.tasks.cells import (
    OPPOSITES,
    count,
    enumerate_names,
    flag,
    index_of,
    show,
    single,
    sort_names,
    text,
)
from recon_search.tasks.meter import Meter
from recon_search.tasks.metrics import IGNORED

USUAL = ("0", "1")


@dataclass(frozen=True)
class Binary:
    """Say yes or no.

    Targets are int64 (B,), 1 for yes, 0 for no, `IGNORED` where there is no label; outputs are
    scores (B, 1), above 0 for yes.

    Attributes:
        name: of the task.
        weight: of its loss.
        metrics: those that delta_m is made of, given by their names: accuracy, error (rate),
            balanced-accuracy, f1 (of yes), auroc.
        class_names: what no and yes are called. If both are words or digits that mean it ("no",
            "true", "0"), cells may hold any of these.
        positive_weight: of the samples that are yes, in the loss, which is a mean over samples.
        ignore: cells that are no label.

    Examples:
        >>> ripe = Binary.fit("ripe", ["yes", "no", "no", ""])
        >>> [ripe.target(cell).item() for cell in ("yes", "true", "no", "")]
        [1, 1, 0, -100]
        >>> ripe.predict(torch.tensor([[-3.0]]))[""]
        ['no']
    """

    name: str
    weight: float = 1.0
    metrics: Any = field(default=("accuracy",), hash=False)
    class_names: tuple[str, ...] = USUAL
    positive_weight: float = 1.0
    ignore: tuple[str, ...] = ()
    reads: ClassVar[Literal["vector"]] = "vector"
    n_outputs: ClassVar[int] = 1

    def __post_init__(self) -> None:
        arguments.settle(self, metrics.BINARY)
        found = arguments.names(self.name, "class_names", self.class_names)
        if len(found) != 2:
            rule = "two names, that of no first"
            raise arguments.refusal(self.name, "class_names", rule, found, "Change them.")
        arguments.put(self, "class_names", found)
        weight = self.positive_weight
        arguments.number(self.name, "positive_weight", weight, lambda w: w > 0, "above 0")

    @classmethod
    def fit(
        cls,
        name: str,
        cells: Iterable[Any],
        *,
        classes: Sequence[Any] = (),
        positive_weight: float | Literal["balanced"] = 1.0,
        **options: Any,
    ) -> Self:
        """Make the task of the cells of the training part.

        Args:
            name: of the task.
            cells: in any order. Of two texts that do not mean yes or no, the second in order is
                yes.
            classes: what no and yes are called, if not as in the cells.
            positive_weight: "balanced" for as many times as no is more frequent than yes.
            options: other attributes.

        Raises:
            LabelError: there is not both yes and no, or a cell is neither.
            RecipeError: an option is unknown, or of no use.
        """
        counts = count(cells, arguments.ignored(options.get("ignore", ())), name)
        names = arguments.classes(name, classes)
        if not names or not counts:
            names = _names(name, counts)
        own = {"class_names": names}
        task = arguments.complete(cls, name, own, options, "classes", "positive_weight")
        arguments.check_named(name, [each for each in counts if task._read(each) is None], names)
        n = Counter[int | None]()
        for each, number in counts.items():
            n[task._read(each)] += number
        weight: Any = positive_weight
        if positive_weight == "balanced":
            weight = n[0] / n[1] if n[0] and n[1] else 1.0
        return replace(task, positive_weight=weight)

    @property
    def units(self) -> dict[str, str]:
        """All are shares."""
        return dict.fromkeys(self.metrics, "%")

    def target(self, cell: Any) -> Tensor:
        """Read whether a sample is one."""
        found = text(single(cell, self.name))
        if found is None or found in self.ignore:
            return torch.tensor(IGNORED)
        meant = self._read(found)
        return torch.tensor(
            index_of(found, self.class_names, self.name) if meant is None else meant
        )

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Binary cross-entropy over the images that have a label."""
        return losses.yes_or_no(output, target, self.positive_weight)

    def n_labels(self, target: Tensor) -> Tensor:
        """Number of images that have a label."""
        return (target != IGNORED).sum()

    def meter(self) -> Meter:
        """Its metrics, and the loss."""
        found = {name: metrics.of_columns(name, 1) for name in self.metrics}
        return Meter(self.loss, self.n_labels, found, frozenset(found))

    def predict(self, output: Tensor, *, every: bool = False) -> dict[str, list[Any]]:
        """Return what is likelier, and the probability of yes."""
        scores = output.detach().double()[:, 0]
        yes = scores.sigmoid().tolist()
        found: dict[str, list[Any]] = {
            "": [self.class_names[score > 0] for score in scores.tolist()],
            "probability": yes,
        }
        if every:
            for name, shares in zip(self.class_names, ([1 - p for p in yes], yes), strict=True):
                found[f"probability {name}"] = shares
        return found

    def spec(self) -> dict[str, Any]:
        """What `create_task` makes an equal task of."""
        return arguments.spec(self, "binary")

    def _read(self, found: str) -> int | None:
        """Return what a text says, None where it says neither yes nor no."""
        if found in self.class_names:
            return self.class_names.index(found)
        return flag(found) if tuple(map(flag, self.class_names)) == (0, 1) else None


def _names(task: str, found: Collection[str]) -> tuple[str, ...]:
    """Name no and yes after the texts that are in the training part."""
    if found and all(flag(text) is not None for text in found):
        small = {text.lower() for text in found}
        if len({flag(text) for text in small}) == 2:
            if small not in map(set, OPPOSITES):
                return USUAL
            spelled = found if len(found) == 2 else small
            return tuple(sorted(spelled, key=lambda text: flag(text) or 0))
    elif len(found) == 2:
        return sort_names(found)
    if len(found) == 1:
        raise LabelError(
            f"Task '{task}' must have yes and no, or two other values, in the training part, found "
            f"only {show(*found)}. An empty cell is no label: write no where that is meant, name "
            "both in `classes`, or leave the task out."
        )
    raise LabelError(
        f"Task '{task}' must have yes and no, or two other values, in the training part, found "
        f"{enumerate_names(sort_names(found)) or 'no label'}. Name two in `classes`, name those "
        'that are no label in `ignore`, or use kind = "classes".'
    )
