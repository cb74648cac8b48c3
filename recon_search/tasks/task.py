"""What a task is: a loss, the metrics it is judged by, and what it needs of a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from recon_search.tasks.meter import Meter

Metrics = dict[str, dict[str, float]]
"""Metric values by task and metric name."""

Directions = Mapping[str, Mapping[str, int]]
"""By task, the metrics that judge it: 1 where higher is better, -1 where lower is."""


@runtime_checkable
class Task(Protocol):
    """One task of a network.

    Laws: without a label there is no loss; the loss of a batch is the mean of its samples' losses
    weighted by their labels; a meter's values do not depend on how samples are cut into batches.

    Attributes:
        name: any name.
        weight: multiplies the loss before a method or a probe sees it.
        reads: which features its head reads, one vector an image or a pyramid of maps.
        n_outputs: numbers that its head gives, an image or a pixel.
        metrics: those that delta_m is made of, each 1 (higher is better) or -1 (lower is).
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def weight(self) -> float: ...  # noqa: D102
    @property
    def reads(self) -> Literal["vector", "pyramid"]: ...  # noqa: D102
    @property
    def n_outputs(self) -> int: ...  # noqa: D102
    @property
    def metrics(self) -> Mapping[str, int]: ...  # noqa: D102

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean over the labelled entries, a float32 scalar; nan where there is none."""

    def n_labels(self, target: Tensor) -> Tensor:
        """Number of labelled entries, an integer scalar."""

    def meter(self) -> Meter:
        """A new, empty meter of its metrics and its loss."""

    def spec(self) -> dict[str, Any]:
        """Plain JSON values that `registry.create_task` makes an equal task of."""


@runtime_checkable
class CellTask(Task, Protocol):
    """A task whose label of an image fits a cell of a table; `registry.fit_task` makes it.

    Cells are what CSV and Parquet files hold: text, numbers, booleans, lists, arrays. None, nan,
    empty text and what the option `ignore` names are no label. Targets of several samples are
    stacked by `torch.stack`. A kind of one's own without all of this trains on sources that make
    its targets themselves.
    """

    @property
    def units(self) -> Mapping[str, str]:
        """By metric its unit: "%" of a share, "" of a plain number, or the user's own."""

    def target(self, cell: Any) -> Tensor:
        """Read the label of one sample; the shape and dtype are those of any other.

        Raises:
            LabelError: the cell holds no label of this task.
        """

    def predict(self, output: Tensor, *, every: bool = False) -> dict[str, list[Any]]:
        """Say in the user's terms what outputs (B, n_outputs) mean.

        Args:
            output: of the task's head.
            every: whether to add a column for each class's probability.

        Returns:
            Columns of B plain values. The prediction itself is called "" and reads as a cell;
            other names are to be put after the task's.
        """


@runtime_checkable
class PixelTask(Task, Protocol):
    """A task whose label of an image is a picture; `registry.fit_pixels` makes it.

    It reads a pyramid, and its outputs are (B, n_outputs, H, W) at the size of the input.
    `n_labels` counts pixels.
    """

    @property
    def units(self) -> Mapping[str, str]:
        """By metric its unit: "%" of a share, "" of a plain number, or the user's own."""

    def target(self, picture: Any) -> Tensor:
        """Read the label of one sample, an array as files hold it, (H, W) or (H, W, n).

        Raises:
            LabelError: it has another shape, or values that are of no use.
        """

    def blank(self, size: tuple[int, int]) -> Tensor:
        """Return the target of an image of this size (H, W) that has no label."""

    def decode(self, output: Tensor) -> Tensor:
        """Say in the user's terms what outputs mean: pictures (B, H, W), or (B, n, H, W)."""


def directions(tasks: Iterable[Task]) -> dict[str, dict[str, int]]:
    """Return by task name the metrics that delta_m is made of, with their directions."""
    return {task.name: dict(task.metrics) for task in tasks}


def units(tasks: Iterable[Task]) -> dict[str, dict[str, str]]:
    """Return by task name the unit of each metric; kinds of one's own may have none."""
    return {
        task.name: {name: getattr(task, "units", {}).get(name, "") for name in task.metrics}
        for task in tasks
    }


def class_names(task: Task) -> tuple[str, ...]:
    """Return the names of a task's classes in the order of its outputs, if it has any."""
    return tuple(getattr(task, "class_names", ()))
