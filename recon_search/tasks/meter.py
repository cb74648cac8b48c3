"""Metrics of one task over the batches of a part."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor
from torchmetrics import Metric, MetricCollection


class Meter:
    """Streams outputs and targets into metrics and the mean loss.

    Metrics are exact over all that was streamed, not means over batches.

    Args:
        loss: the task's loss, mean over labelled entries.
        n_labels: counts labelled entries.
        metrics: from torchmetrics, by name; they ignore what has no label, and see no batch that is
            all without unless they have `counts_all`.
        percent: names of those that are shares, reported in percent.
        names: of the values, where a metric returns several by name.
    """

    def __init__(
        self,
        loss: Callable[[Tensor, Tensor], Tensor],
        n_labels: Callable[[Tensor], Tensor],
        metrics: Mapping[str, Metric],
        percent: frozenset[str] = frozenset(),
        names: Sequence[str] = (),
    ) -> None:
        self._loss = loss
        self._n_labels = n_labels
        self._percent = percent
        for metric in metrics.values():
            metric.distributed_available_fn = _alone  # the first process alone evaluates
        self._names = tuple(names or metrics)
        # Groups are formed of metrics whose states are equal after one batch, be it by chance.
        self._metrics = MetricCollection(dict(metrics), compute_groups=False)
        # torchmetrics' MeanMetric leaves weights out where it keeps nan, which a loss may be.
        self._total = 0.0
        self._n = 0

    def update(self, output: Tensor, target: Tensor) -> None:
        """Take in a batch; one without a label changes no value of samples that have one."""
        n = int(self._n_labels(target))
        if not self._n:
            self._metrics.to(output.device)
        if n == 0:
            for metric in self._metrics.values():
                if getattr(metric, "counts_all", False):
                    metric.update(output, target)
            return
        self._n += n
        self._metrics.update(output, target)
        self._total += n * float(self._loss(output, target))

    def compute(self) -> dict[str, float]:
        """Return every metric and `loss`; nan for all where no label was seen."""
        if not self._n:
            return dict.fromkeys([*self._names, "loss"], math.nan)
        values = {name: float(value) for name, value in self._metrics.compute().items()}
        values = {n: 100 * value if n in self._percent else value for n, value in values.items()}
        return {**values, "loss": self._total / self._n}


def _alone() -> bool:
    """Whether metrics are to be exchanged with other processes: never."""
    return False
