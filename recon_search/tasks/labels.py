"""Any number of labels an image: binary cross-entropy on one score a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from recon_search.errors import LabelError
from recon_search.tasks import arguments, losses, metrics
from recon_search.tasks.cells import entries, flag, index_of, show, sort_names, text
from recon_search.tasks.meter import Meter
from recon_search.tasks.metrics import IGNORED

OTHER_SEPARATORS = (",", ";", "\n")
"""What may stand between labels where a recipe says nothing and no cell has the usual one."""


@dataclass(frozen=True)
class Labels:
    """Say of each of several labels whether an image has it.

    Targets are int64 (B, n_classes), 1 for those that it has, 0 for others, `IGNORED` for what is
    not known; outputs are scores (B, n_classes), above 0 for yes. A label counts as an entry: the
    loss is the mean over all entries that are known.

    Attributes:
        name: of the task.
        n_classes: number of different labels.
        weight: of its loss.
        metrics: those that delta_m is made of, given by their names: means over labels of auroc and
            map (average precision), over those that have both yes and no; of accuracy, error
            (rate), over those that occur in a target; f1, over those that an image has or is said
            to have.
        class_names: of the labels in the order of the outputs; "0", "1", ... if not given.
        positive_weights: of the entries that are yes, in the loss, one a label.
        separator: between the labels of a cell of text.
        flags: whether cells hold a yes or no for every label, in order, and not the names of those
            that an image has.
        none: a cell that says that an image has none of the labels, as an empty one does not.
        ignore: cells, and of flags entries, that are no label.

    Examples:
        >>> seen = Labels.fit("seen", ["cat|dog", "dog", "", "bird"])
        >>> seen.class_names
        ('bird', 'cat', 'dog')
        >>> seen.target("cat|dog").tolist()
        [0, 1, 1]
        >>> seen.target("").tolist()
        [-100, -100, -100]
    """

    name: str
    n_classes: int
    weight: float = 1.0
    metrics: Any = field(default=("auroc",), hash=False)
    class_names: tuple[str, ...] = ()
    positive_weights: tuple[float, ...] = ()
    separator: str = "|"
    flags: bool = False
    none: str = ""
    ignore: tuple[str, ...] = ()
    reads: ClassVar[Literal["vector"]] = "vector"

    def __post_init__(self) -> None:
        arguments.settle(self, metrics.LABELS)
        arguments.class_names(self, least=1)
        weights = self.positive_weights
        weights = arguments.positive(self.name, "positive_weights", weights, self.n_classes)
        arguments.put(self, "positive_weights", weights)
        arguments.separator(self.name, self.separator)
        if not isinstance(self.flags, bool):
            raise arguments.refusal(self.name, "flags", "true or false", self.flags, "Change it.")
        if not isinstance(self.none, (str, int, float)):
            raise arguments.refusal(self.name, "none", "one cell", self.none, "Change it.")
        arguments.put(self, "none", text(self.none) or "")

    @classmethod
    def fit(
        cls,
        name: str,
        cells: Iterable[Any],
        *,
        classes: Sequence[Any] = (),
        positive_weights: Sequence[float] | Literal["balanced"] = (),
        separator: str | None = None,
        flags: bool | None = None,
        none: str = "",
        **options: Any,
    ) -> Self:
        """Make the task of the cells of the training part.

        Args:
            name: of the task.
            cells: in any order.
            classes: all labels in their order; else those that are found, sorted.
            positive_weights: one a label; or "balanced", for as many times as no is more frequent.
            separator: as the attribute; if not said, "|", and cells that look cut by another
                character are refused.
            flags: as the attribute; if not said, whether that is what cells look like.
            none: as the attribute.
            options: other attributes.

        Raises:
            LabelError: there is no label, or a cell holds none of `classes`.
            RecipeError: an option is unknown, or of no use.
        """
        is_said, separator = separator is not None, "|" if separator is None else separator
        arguments.separator(name, separator)
        nothing, ignored = text(none) or "", arguments.ignored(options.get("ignore", ()))
        found = (_row(cell, separator, nothing, ignored, name) for cell in cells)
        rows = [row for row in found if row is not None]
        if flags is None:
            flags = _are_flags(rows)
        labels = {label for row in rows for label in row if label is not None}
        names = arguments.classes(name, classes)
        if not (names or flags or is_said) and max(map(len, rows), default=0) < 2:
            _check_cut(name, labels)
        if names:
            arguments.check_named(name, () if flags else sort_names(labels), names)
        elif flags:
            names = arguments.usual_names(max(map(len, rows), default=0))
        else:
            names = sort_names(labels)
        if not rows or not names:
            raise LabelError(
                f"Task '{name}' must have labels in the training part, found none. Leave the task "
                "out."
            )
        own: dict[str, Any] = {"n_classes": len(names), "class_names": names}
        own |= {"separator": separator, "flags": flags, "none": none}
        task = arguments.complete(cls, name, own, options, *own, "classes", "positive_weights")
        n = [Counter(column) for column in zip(*map(task._read, rows), strict=True)]
        weights: Any = positive_weights
        if isinstance(positive_weights, str) and positive_weights == "balanced":
            weights = [each[0] / each[1] if each[0] and each[1] else 1.0 for each in n]
        return replace(task, positive_weights=weights)

    @property
    def n_outputs(self) -> int:
        """One score a label."""
        return self.n_classes

    @property
    def units(self) -> dict[str, str]:
        """All are shares."""
        return dict.fromkeys(self.metrics, "%")

    def target(self, cell: Any) -> Tensor:
        """Read which labels one sample has."""
        row = _row(cell, self.separator, self.none, self.ignore, self.name)
        return torch.tensor([IGNORED] * self.n_classes if row is None else self._read(row))

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Binary cross-entropy over the entries that are known."""
        return losses.yes_or_no(output, target, self.positive_weights)

    def n_labels(self, target: Tensor) -> Tensor:
        """Number of entries that are known."""
        return (target != IGNORED).sum()

    def meter(self) -> Meter:
        """Its metrics, and the loss."""
        found = {name: metrics.of_columns(name, self.n_classes) for name in self.metrics}
        return Meter(self.loss, self.n_labels, found, frozenset(found))

    def predict(self, output: Tensor, *, every: bool = False) -> dict[str, list[Any]]:
        """Return the labels that are likelier than not, and the probability of each."""
        scores = output.detach().double()
        found: dict[str, list[Any]] = {"": [self._write(row) for row in (scores > 0).tolist()]}
        for name, column in zip(self.class_names, scores.sigmoid().T.tolist(), strict=True):
            found[f"probability {name}"] = column
        return found

    def spec(self) -> dict[str, Any]:
        """What `create_task` makes an equal task of."""
        return arguments.spec(self, "labels", always=("name", "n_classes"))

    def _read(self, row: Sequence[str | None]) -> list[int]:
        """Return the target of a cell's entries."""
        if not self.flags:
            known = [name for name in row if name is not None]
            places = {index_of(name, self.class_names, self.name) for name in known}
            return [int(index in places) for index in range(self.n_classes)]
        if not row:
            return [0] * self.n_classes
        meant = [IGNORED if entry is None else flag(entry) for entry in row]
        found = [value for value in meant if value is not None]
        if len(found) < len(meant) or len(found) != self.n_classes:
            raise LabelError(
                f"Task '{self.name}' must be given a 0 or 1 for each of its {self.n_classes} labels"
                f", found {show(list(row))}. Correct it, leave entries or the cell empty, or set "
                "flags = false where cells hold names."
            )
        return found

    def _write(self, row: Sequence[bool]) -> str:
        """Return a cell that says so."""
        if self.flags:
            return self.separator.join(str(int(yes)) for yes in row)
        named = zip(self.class_names, row, strict=True)
        return self.separator.join(name for name, yes in named if yes) or self.none


def _row(
    cell: Any, separator: str, none: str, ignored: Collection[str], task: str
) -> list[str | None] | None:
    """Return the entries of a cell, None for those that are no label; None if all are."""
    if isinstance(cell, str) and text(cell) in {*ignored, none}:
        return [] if text(cell) == none else None
    found = entries(cell, separator)
    if found is None:
        return None
    for entry in found:
        if isinstance(entry, (list, dict, tuple)):
            raise LabelError(
                f"Task '{task}' must be given a list of labels a cell, found {show(cell)}. Write "
                'texts such as "a|b", lists of texts, or a column a label.'
            )
    row = [None if (name := text(entry)) in ignored else name for entry in found]
    if none in row:
        if len(row) > 1:
            raise LabelError(
                f"Task '{task}' must be given labels or '{none}', found both in {show(cell)}. "
                "Remove one."
            )
        return []
    return row if not row or any(entry is not None for entry in row) else None


def _check_cut(task: str, labels: Set[str]) -> None:
    """Refuse labels that seem to be several: cut by another character, their pieces are labels.

    Raises:
        LabelError: names one, and the character.
    """
    for separator in OTHER_SEPARATORS:
        for label in sorted(labels):
            pieces = [piece.strip() for piece in label.split(separator)]
            if len(pieces) > 1 and not labels.isdisjoint(pieces):
                raise LabelError(
                    f"Task '{task}' must have labels with '|' between them if nothing else is said,"
                    f" found {show(label)}, of which a part is a label too. Set separator = "
                    f"{separator!r}, or name all labels in `classes`."
                )


def _are_flags(rows: Sequence[Sequence[str | None]]) -> bool:
    """Whether entries are one 0 or 1 for each label, and not names, of which none comes twice."""
    is_plain = all(entry is None or flag(entry) is not None for row in rows for entry in row)
    is_even = len({len(row) for row in rows if row}) == 1
    return is_plain and is_even and any(len(set(row)) < len(row) for row in rows)
