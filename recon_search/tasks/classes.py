"""One class an image: cross-entropy, accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from recon_search.errors import LabelError
from recon_search.tasks import arguments, metrics
from recon_search.tasks.cells import count, index_of, plain, single, sort_names, text
from recon_search.tasks.meter import Meter
from recon_search.tasks.metrics import IGNORED

__all__ = ["IGNORED", "Classes"]


@dataclass(frozen=True)
class Classes:
    """Choose one of several classes.

    Targets are int64 classes (B,), `IGNORED` where there is no label; outputs are scores
    (B, n_classes).

    Attributes:
        name: of the task.
        n_classes: at least 2.
        weight: of its loss.
        metrics: those that delta_m is made of, given by their names: accuracy, error (rate), top-5,
            balanced-accuracy (mean recall of the classes that occur), f1 (mean over the classes
            that occur or are predicted), auroc (mean of one class against the rest, over the
            classes that have both).
        class_names: in the order of the outputs; "0", "1", ... if not given.
        class_weights: of the samples of each class in the loss, in the order of the classes. The
            loss is the mean of weighted losses over samples, not over weights: so it remains the
            mean of its parts. `fit` makes them 1 on average over the training part.
        label_smoothing: share of a label that is spread evenly over all classes, in [0, 1).
        ignore: cells that are no label.

    Examples:
        >>> colour = Classes.fit("colour", ["red", "blue", "", "red"])
        >>> colour.class_names
        ('blue', 'red')
        >>> colour.target("red"), colour.target("")
        (tensor(1), tensor(-100))
        >>> colour.predict(torch.tensor([[0.0, 9.0]]))[""]
        ['red']
    """

    name: str
    n_classes: int
    weight: float = 1.0
    metrics: Any = field(default=("accuracy",), hash=False)
    class_names: tuple[str, ...] = ()
    class_weights: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    ignore: tuple[str, ...] = ()
    reads: ClassVar[Literal["vector"]] = "vector"

    def __post_init__(self) -> None:
        arguments.settle(self, metrics.CLASSES)
        arguments.class_names(self, least=2)
        name, n = self.name, self.n_classes
        weights = arguments.positive(name, "class_weights", self.class_weights, n)
        arguments.put(self, "class_weights", weights)
        smoothing = self.label_smoothing
        arguments.number(name, "label_smoothing", smoothing, lambda s: 0 <= s < 1, "in [0, 1)")
        if "top-5" in self.metrics and n <= 5:
            rule = "of use: top-5 asks for more than 5 classes"
            raise arguments.refusal(name, "metrics", rule, n, "Leave it out.")

    @classmethod
    def fit(
        cls,
        name: str,
        cells: Iterable[Any],
        *,
        classes: Sequence[Any] = (),
        class_weights: Sequence[float] | Literal["balanced"] = (),
        **options: Any,
    ) -> Self:
        """Make the task of the cells of the training part.

        Args:
            name: of the task.
            cells: in any order.
            classes: all of them in their order; else those that are found, sorted.
            class_weights: one a class; or "balanced", by which a class weighs as it is rare.
            options: other attributes.

        Raises:
            LabelError: there are not two classes, or a cell holds none of `classes`.
            RecipeError: an option is unknown, or of no use.
        """
        counts = count(cells, arguments.ignored(options.get("ignore", ())), name)
        names = arguments.classes(name, classes) or sort_names(counts)
        arguments.check_named(name, counts, names)
        if not counts or len(names) < 2:
            found = f"only '{names[0]}'" if counts else "no label"
            raise LabelError(
                f"Task '{name}' must have at least two classes in the training part, found {found}."
                " Name all in `classes`, or leave the task out."
            )
        weights = balance(name, class_weights, [counts[each] for each in names])
        own = {"n_classes": len(names), "class_names": names, "class_weights": weights}
        return arguments.complete(cls, name, own, options, "classes", "class_weights")

    @property
    def n_outputs(self) -> int:
        """One score a class."""
        return self.n_classes

    @property
    def units(self) -> dict[str, str]:
        """All are shares."""
        return dict.fromkeys(self.metrics, "%")

    def target(self, cell: Any) -> Tensor:
        """Read the class of one sample."""
        found = text(single(cell, self.name))
        is_missing = found is None or found in self.ignore
        return torch.tensor(
            IGNORED if is_missing else index_of(str(found), self.class_names, self.name)
        )

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy over the images that have a label."""
        if not self.class_weights:
            return F.cross_entropy(
                output.float(), target, ignore_index=IGNORED, label_smoothing=self.label_smoothing
            )
        total = F.cross_entropy(
            output.float(),
            target,
            torch.tensor(self.class_weights, device=output.device),
            ignore_index=IGNORED,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        return total / self.n_labels(target)

    def n_labels(self, target: Tensor) -> Tensor:
        """Number of images that have a label."""
        return (target != IGNORED).sum()

    def meter(self) -> Meter:
        """Its metrics, and the loss."""
        found = {name: metrics.of_classes(name, self.n_classes) for name in self.metrics}
        return Meter(self.loss, self.n_labels, found, frozenset(found))

    def predict(self, output: Tensor, *, every: bool = False) -> dict[str, list[Any]]:
        """Return the name of the likeliest class and its probability."""
        shares = output.detach().double().softmax(1)
        best = shares.max(1)
        found: dict[str, list[Any]] = {
            "": [self.class_names[index] for index in best.indices.tolist()],
            "probability": best.values.tolist(),
        }
        if every:
            for name, column in zip(self.class_names, shares.T.tolist(), strict=True):
                found[f"probability {name}"] = column
        return found

    def spec(self) -> dict[str, Any]:
        """What `create_task` makes an equal task of."""
        return arguments.spec(self, "classes", always=("name", "n_classes"))


def balance(name: str, given: Any, counts: Sequence[int]) -> tuple[float, ...]:
    """Scale weights of classes to 1 on average over their samples.

    Args:
        name: of the task.
        given: one a class, "balanced" for the reciprocals of the counts, empty for none.
        counts: samples of each class; of one that has none, the weight is that of a single one.
    """
    given = plain(given)
    if given == "balanced":
        given = [1 / max(count, 1) for count in counts]
    weights = arguments.positive(name, "class_weights", given, len(counts))
    total = sum(weight * count for weight, count in zip(weights, counts, strict=bool(weights)))
    return tuple(weight * sum(counts) / total for weight in weights)
