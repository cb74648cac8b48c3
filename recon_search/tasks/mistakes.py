"""Where outputs differ from labels over a part: confusions of classes, sizes of errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from recon_search.tasks import losses
from recon_search.tasks.binary import Binary
from recon_search.tasks.classes import Classes
from recon_search.tasks.depth import Depth
from recon_search.tasks.edges import Edges
from recon_search.tasks.labels import Labels
from recon_search.tasks.metrics import IGNORED
from recon_search.tasks.normals import Normals
from recon_search.tasks.segments import Segments
from recon_search.tasks.task import Task
from recon_search.tasks.values import Values

MOST_CLASSES = 1000
"""Above which the square of their number is not kept."""

N_BINS = 24
"""Bars of a histogram of errors."""

Shape = Literal["confusion", "labels", "histogram"]


@dataclass
class Mistakes:
    """What a task gets wrong, streamed.

    Attributes:
        task: of a kind that `mistakes_of` knows.
        shape: what `counts` are: labels (rows) by answers (columns), (n, n); of each label the
            right yes, wrong yes, wrong no and right no, (n, 4); or errors by size, (bins,).
        counts: int64.
        edges: of the bins, bins + 1 of them; errors beyond fall into the outermost. Empty for other
            shapes.
        what: what errors are, with their unit.
        ends: the first and the last edge in the scale in which errors are computed.
    """

    task: Task
    shape: Shape
    counts: Tensor
    edges: Sequence[float] = ()
    what: str = ""
    ends: tuple[float, float] = (0.0, 1.0)

    @torch.no_grad()
    def update(self, output: Tensor, target: Tensor) -> Tensor:
        """Take in a batch.

        Returns:
            How wrong each sample is, float64 (B,) on the CPU: of classes the share of wrong labels,
            else the mean error. Zero is right; nan is not labelled.
        """
        task, output, target = self.task, output.detach().float().cpu(), target.cpu()
        if isinstance(task, Classes):
            return self._of_classes(output.argmax(1), target)
        if isinstance(task, Binary):
            return self._of_classes((output[:, 0] > 0).long(), target.reshape(-1))
        if isinstance(task, Segments):
            size = output.shape[2:]
            return self._of_classes(output.argmax(1), target.reshape(-1, *size))
        if isinstance(task, Labels):
            return self._of_labels(output > 0, target)
        return self._of_errors(*_errors(task, output, target))

    def _of_classes(self, said: Tensor, target: Tensor) -> Tensor:
        known, n = target != IGNORED, len(self.counts)
        index = target[known].long() * n + said[known]
        self.counts += torch.bincount(index, minlength=n * n).view(n, n)
        return _mean((said != target).double(), known)

    def _of_labels(self, said: Tensor, target: Tensor) -> Tensor:
        known, yes = (target == 0) | (target == 1), target == 1
        parts = (said & yes, said & ~yes, ~said & yes, ~said & ~yes)
        self.counts += torch.stack([(part & known).sum(0) for part in parts], 1)
        return _mean((said != yes).double(), known)

    def _of_errors(self, errors: Tensor, known: Tensor) -> Tensor:
        least, most = self.ends
        n = len(self.counts)
        place = ((errors[known].double() - least) / (most - least) * n).long().clamp(0, n - 1)
        self.counts += torch.bincount(place, minlength=n)
        return _mean(errors.abs().double(), known)


def mistakes_of(task: Task) -> Mistakes | None:
    """Return empty mistakes of a task; None for a kind of one's own, and for very many classes."""
    if isinstance(task, Classes | Segments):
        n = task.n_classes
        if n > MOST_CLASSES:
            return None
        return Mistakes(task, "confusion", torch.zeros(n, n, dtype=torch.int64))
    if isinstance(task, Binary):
        return Mistakes(task, "confusion", torch.zeros(2, 2, dtype=torch.int64))
    if isinstance(task, Labels):
        return Mistakes(task, "labels", torch.zeros(task.n_classes, 4, dtype=torch.int64))
    if isinstance(task, Values):
        if task.n_values == 1:
            scale, unit = float(task.std[0]), f" [{task.unit}]" if task.unit else ""
            return _histogram(task, -3, 3, f"prediction minus label{unit}", scale)
        return _histogram(task, -3, 3, "prediction minus label, in standard deviations")
    if isinstance(task, Depth):
        return _histogram(task, -1, 1, "prediction minus label, relative to it")
    if isinstance(task, Normals):
        return _histogram(task, 0, 72, "angle between prediction and label [degrees]")
    if isinstance(task, Edges):
        return _histogram(task, 0, 1, "difference of probability and label")
    return None


def _histogram(task: Task, least: float, most: float, what: str, scale: float = 1.0) -> Mistakes:
    edges = (torch.linspace(least, most, N_BINS + 1, dtype=torch.float64) * scale).tolist()
    counts = torch.zeros(N_BINS, dtype=torch.int64)
    return Mistakes(task, "histogram", counts, edges, what, (least, most))


def _errors(task: Any, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Errors in the scale of the histogram, and which are known; of the same shape."""
    if isinstance(task, Values):
        mean, std = (torch.tensor(each, dtype=torch.float64) for each in (task.mean, task.std))
        target = target.reshape(output.shape)
        known = ~target.isnan()
        return torch.where(known, output.double() - (target.double() - mean) / std, 0.0), known
    decoded = task.decode(output)
    if isinstance(task, Normals):
        known = target.isfinite().all(1) & (target != 0).any(1)
        truth = losses.directions(torch.where(known[:, None], target.float(), 0.0))
        cosines = (decoded * truth).sum(1).clamp(-1, 1)
        return cosines.acos().rad2deg(), known
    target = target.reshape(decoded.shape).float()
    if isinstance(task, Depth):
        known = target.isfinite() & (target > 0)
        return torch.where(known, (decoded - target) / target.clamp(min=1e-12), 0.0), known
    known = target != IGNORED
    return torch.where(known, (decoded - target).abs(), 0.0), known


def _mean(values: Tensor, known: Tensor) -> Tensor:
    """Mean of the known ones of each sample, (B,); nan where there is none."""
    known = known.flatten(1) if known.ndim > 1 else known[:, None]
    values = values.reshape(known.shape)
    return torch.where(known, values, 0.0).sum(1) / known.sum(1)
