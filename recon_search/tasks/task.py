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


def directions(tasks: Iterable[Task]) -> dict[str, dict[str, int]]:
    """Return by task name the metrics that delta_m is made of, with their directions."""
    return {task.name: dict(task.metrics) for task in tasks}
