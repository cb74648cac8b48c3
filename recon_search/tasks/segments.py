"""One class a pixel: cross-entropy, mIoU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from recon_search.errors import LabelError
from recon_search.tasks import arguments, maps, pixel_metrics
from recon_search.tasks.classes import balance
from recon_search.tasks.meter import Meter
from recon_search.tasks.metrics import IGNORED

BYTE = 256
"""Values of a picture, of which the last mostly stands for no label."""

MOST_CLASSES = 2**15
"""Those that masks may have of which nobody says the number."""


@dataclass(frozen=True)
class Segments:
    """Choose one of several classes for each pixel.

    Targets are int64 classes (B, H, W), `IGNORED` where there is no label; outputs are scores
    (B, n_classes, H, W).

    Attributes:
        name: of the task.
        n_classes: at least 2.
        weight: of its loss.
        metrics: those that delta_m is made of, given by their names: miou (mean over the classes
            that occur or are predicted, of one confusion matrix over the part), pixel-accuracy.
        class_names: in the order of the outputs; "0", "1", ... if not given.
        class_weights: of the pixels of each class in the loss, which is the mean of weighted losses
            over pixels, not over weights. `fit` makes them 1 on average over the training part.
        ignore_index: values of pixels in files that are no label; one or several.

    Examples:
        >>> task = Segments("parts", 3, ignore_index=255)
        >>> task.target(np.array([[0, 2], [255, 1]]))
        tensor([[   0,    2],
                [-100,    1]])
        >>> task.metrics
        {'miou': 1, 'pixel-accuracy': 1}
    """

    name: str
    n_classes: int
    weight: float = 1.0
    metrics: Any = field(default=("miou", "pixel-accuracy"), hash=False)
    class_names: tuple[str, ...] = ()
    class_weights: tuple[float, ...] = ()
    ignore_index: Any = (-1,)
    reads: ClassVar[Literal["pyramid"]] = "pyramid"

    def __post_init__(self) -> None:
        arguments.settle(self, pixel_metrics.SEGMENTS)
        arguments.class_names(self, least=2)
        weights = arguments.positive(self.name, "class_weights", self.class_weights, self.n_classes)
        arguments.put(self, "class_weights", weights)
        ignored = arguments.whole_numbers(self.name, "ignore_index", self.ignore_index)
        arguments.put(self, "ignore_index", ignored)

    @classmethod
    def fit(
        cls,
        name: str,
        pictures: Iterable[Any],
        *,
        classes: Sequence[Any] = (),
        n_classes: int | None = None,
        class_weights: Sequence[float] | Literal["balanced"] = (),
        **options: Any,
    ) -> Self:
        """Make the task of the masks of the training part.

        They are looked at only if neither `classes` nor `n_classes` is given, or if weights are.

        Args:
            name: of the task.
            pictures: masks (H, W), in any order.
            classes: the names of all, in the order of their values.
            n_classes: their number; without it and names, one more than the largest value. Of
                masks that hold 255 and no 254, it or `ignore_index` must be said.
            class_weights: one a class; or "balanced", by which a class weighs as it is rare.
            options: other attributes.

        Raises:
            LabelError: a mask is of no use, or there are not two classes.
            RecipeError: an option is unknown, or of no use.
        """
        names = arguments.names(name, "classes", classes) if len(classes) else ()
        n = n_classes if n_classes is not None else len(names) or None
        counts: list[int] = []
        if n is None:
            ignored = options.get("ignore_index", (-1,))
            ignored = arguments.whole_numbers(name, "ignore_index", ignored)
            counts = _count(name, pictures, ignored)
            if len(counts) == BYTE and not counts[-2]:
                raise LabelError(
                    f"Task '{name}' must be told what {BYTE - 1} means, found it in "
                    f"{counts[-1]} pixels of the masks of the training part, and "
                    f"{BYTE - 2} in none. Set `ignore_index` = {BYTE - 1} if it is no label, or "
                    f"`n_classes` = {BYTE} if it is a class."
                )
            if len(counts) < 2:
                raise LabelError(
                    f"Task '{name}' must have at least two classes in the masks of the training "
                    f"part, found {len(counts)}. Name all in `classes`, or leave the task out."
                )
        own = {
            "n_classes": len(counts) if n is None else n,
            "class_names": names,
            "class_weights": (),
        }
        task = arguments.complete(cls, name, own, options, "classes", "n_classes", "class_weights")
        if not len(class_weights):
            return task
        counts = counts or _count(name, pictures, task.ignore_index, task.n_classes)
        return replace(task, class_weights=balance(name, class_weights, counts))

    @property
    def n_outputs(self) -> int:
        """One score a class."""
        return self.n_classes

    @property
    def units(self) -> dict[str, str]:
        """All are shares."""
        return dict.fromkeys(self.metrics, "%")

    def target(self, picture: Any) -> Tensor:
        """Read a mask, int64 (H, W).

        Raises:
            LabelError: it has another shape, or a value that is none of the classes.
        """
        return torch.from_numpy(_read(self.name, picture, self.ignore_index, self.n_classes)[0])

    def blank(self, size: tuple[int, int]) -> Tensor:
        """Return the target of an image of this size (H, W) that has no label."""
        return torch.full(size, IGNORED)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy over the pixels that have a label."""
        target = _fit(target, output).long()
        if not self.class_weights:
            return F.cross_entropy(output.float(), target, ignore_index=IGNORED)
        weights = torch.tensor(self.class_weights, device=output.device)
        total = F.cross_entropy(
            output.float(), target, weights, ignore_index=IGNORED, reduction="sum"
        )
        return total / self.n_labels(target)

    def n_labels(self, target: Tensor) -> Tensor:
        """Number of pixels that have a label."""
        return (target != IGNORED).sum()

    def meter(self) -> Meter:
        """Its metrics, and the loss."""
        found = pixel_metrics.Confusion(self.metrics, self.n_classes)
        return Meter(
            self.loss, self.n_labels, {"pixels": found}, frozenset(found.names), found.names
        )

    def decode(self, output: Tensor) -> Tensor:
        """Return the likeliest class of each pixel (B, H, W): uint8, int16 of more than 256."""
        return output.detach().argmax(1).to(torch.uint8 if self.n_classes <= 256 else torch.int16)

    def spec(self) -> dict[str, Any]:
        """What `create_task` makes an equal task of."""
        return arguments.spec(self, "segments", always=("name", "n_classes"))


def _fit(target: Tensor, output: Tensor) -> Tensor:
    """Return a target (B, H, W), also of one with a channel."""
    return target.reshape(len(output), *output.shape[2:])


def _count(
    name: str, pictures: Iterable[Any], ignored: Sequence[int], n_classes: int | None = None
) -> list[int]:
    """Count the pixels of each class; of as many as are found where their number is not known.

    Raises:
        LabelError: a mask is of no use.
    """
    most = MOST_CLASSES if n_classes is None else n_classes
    counts = np.zeros(most, dtype=np.int64)
    for picture in pictures:
        counts += np.bincount(_read(name, picture, ignored, most)[1], minlength=most)
    found: list[int] = counts.tolist()
    while n_classes is None and found and not found[-1]:
        found.pop()
    return found


def _read(
    name: str, picture: Any, ignored: Sequence[int], n_classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a mask with `IGNORED` where there is no label, and the labels alone.

    Raises:
        LabelError: it has another shape, or a value that is none of the classes.
    """
    found = maps.whole_numbers(picture, name)
    is_ignored = np.isin(found, ignored)
    labels = found[~is_ignored]
    wrong = labels[(labels < 0) | (labels >= n_classes)]
    if wrong.size:
        raise LabelError(
            f"Task '{name}' must be given masks of classes from 0 to {n_classes - 1}, found "
            f"{wrong[0]} in {wrong.size} pixels. Correct them, or name the value in "
            "`ignore_index`."
        )
    return np.where(is_ignored, IGNORED, found), labels
