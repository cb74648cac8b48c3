"""What a task asks of its outputs: a loss and the metrics it is judged by."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy

Metrics = dict[str, dict[str, float]]
"""Metric values by task and metric name."""

METRIC_DIRECTIONS = {"accuracy": 1}
"""The metrics that delta_m is made of; 1: higher is better, -1: lower is better."""


IGNORED = -100
"""The target of an example that does not have a task's label; torch's own convention."""


def task_loss(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of class scores (B, C) against classes (B,), over those that have a label."""
    return torch.nn.functional.cross_entropy(output.float(), target, ignore_index=IGNORED)


def task_metrics(output: Tensor, target: Tensor) -> dict[str, float]:
    """Accuracy in percent over all (N, C) class scores that have a label, and cross-entropy."""
    labelled = target != IGNORED
    output, target = output[labelled], target[labelled]
    accuracy = multiclass_accuracy(output, target, num_classes=output.shape[1], average="micro")
    return {"accuracy": 100 * float(accuracy), "loss": float(task_loss(output, target))}


def delta_m(metrics: Metrics, single: Metrics) -> float:
    """Mean relative difference to single-task models, in percent; higher is better.

    The mean over tasks of the mean over a task's metrics of the signed relative difference
    (Recon, arXiv 2302.11289, section 4.1). Metrics of no known direction (losses) do not enter.

    Args:
        metrics: of the model in question.
        single: of the single-task models, same tasks and metrics. A baseline of exactly zero has
            no relative difference; it counts as the smallest positive number.
    """
    tasks = [_relative(metrics[task], single[task]) for task in single]
    return 100 * sum(tasks) / len(tasks)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation over seeds; the latter is 0 for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _relative(values: Mapping[str, float], baseline: Mapping[str, float]) -> float:
    differences = [
        direction * (values[name] - baseline[name]) / max(abs(baseline[name]), 1e-12)
        for name, direction in METRIC_DIRECTIONS.items()
    ]
    return sum(differences) / len(differences)
