"""Which epoch of a training is kept, and when it has gone on for long enough.

An epoch is better than another if the tasks' validation losses, each relative to that of the first
epoch, are lower on average. So no task's unit decides, as in delta_m; but every task has a loss, it
is hardly ever near zero or of either sign as metrics may be (R2 after a first epoch), and it is
finer than a count of right answers. A task whose labels validation data lack takes no part.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from recon_search.model.network import MultiTaskModel
from recon_search.recipe import TrainConfig
from recon_search.tasks.task import Metrics

Record = Mapping[str, Any]


def relative_loss(validation: Metrics, first: Metrics) -> float:
    """Mean over tasks of the validation loss relative to the first epoch's; nan where none is.

    Args:
        validation: of the epoch in question.
        first: of the first epoch.
    """
    ratios = [
        validation[task]["loss"] / max(abs(values["loss"]), 1e-12)
        for task, values in first.items()
        if not math.isnan(values["loss"])
    ]
    return sum(ratios) / len(ratios) if ratios else math.nan


def judge(validation: Metrics, history: Sequence[Record]) -> dict[str, Any]:
    """Return what the record of a new epoch says of it: `relative_loss`, and whether it is `best`.

    Args:
        validation: of the new epoch.
        history: of those before it.
    """
    first = history[0]["validation"] if history else validation
    found = relative_loss(validation, first)
    before = [record["relative_loss"] for record in history if record["best"]]
    # An epoch that cannot be compared is never better, but the first is the best so far.
    return {"relative_loss": found, "best": not before or found < before[-1]}


def kept(history: Sequence[Record], config: TrainConfig) -> Record:
    """Return the record of the epoch that a training keeps."""
    if not config.keeps_best:
        return history[-1]
    return next(record for record in reversed(history) if record["best"])


def reported(history: Sequence[Record], config: TrainConfig, part: str) -> Metrics:
    """Return the metrics of a part that a training reports.

    They are those of the epoch that it keeps, or means over the last `report_epochs`, as MTAN and
    those who follow it report (they over ten, with no validation part).

    Args:
        history: all records.
        config: of the training.
        part: validation; or test, of which several epochs have metrics in their records.
    """
    if config.report_epochs == 1:
        found: Metrics = kept(history, config)[part]
        return found
    last = [record[part] for record in history[-config.report_epochs :]]
    return {
        task: {name: statistics.fmean(each[task][name] for each in last) for name in own}
        for task, own in last[0].items()
    }


def is_over(history: Sequence[Record], config: TrainConfig) -> bool:
    """Whether so many epochs in a row were no better that the rest is left out."""
    if not config.patience or not history:
        return False
    best = next(i for i, record in enumerate(reversed(history)) if record["best"])
    return best >= config.patience


def snapshot(model: MultiTaskModel) -> dict[str, Tensor]:
    """Copy a model's tensors to the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
