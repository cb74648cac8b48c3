"""TorchJD's methods brought to the shapes this package calls them in.

A weighting takes the Gramian (n, n) of n tasks' gradients and returns weights (n,); an aggregator
takes their Jacobian (n, P) and returns a vector (P,); a scalariser takes losses (n,) and returns
one loss.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam
from torchjd.aggregation import (
    FairGradWeighting,
    GradDrop,
    KrumWeighting,
    NashMTL,
    TrimmedMean,
)
from torchjd.scalarization import FAMO, Constant

from recon_search.errors import nearest


def without_tasks(factory: Callable[..., Any]) -> Callable[..., Any]:
    """Make a factory that does not ask for its tasks one that is handed them."""
    return lambda tasks, **options: factory(**options)


def counting(factory: Callable[..., Any]) -> Callable[..., Any]:
    """Make a factory that asks for the number of tasks one that is handed the tasks."""
    return lambda tasks, **options: factory(len(tasks), **options)


def sampled(factory: Callable[..., Any]) -> Callable[..., Any]:
    """Make a factory one that is handed the tasks and how many are drawn, which `Sampling` does."""

    def create(tasks: tuple[str, ...], tasks_per_step: int, **options: Any) -> Any:
        if tasks_per_step < 0:
            raise ValueError(f"`tasks_per_step` must be at least 0, got {tasks_per_step}.")
        return factory(**options)

    return create


class NashMTLWeighting(nn.Module):
    """Nash-MTL (arXiv 2202.01017, Algorithm 1) from the Gramian.

    TorchJD offers it on the Jacobian J alone, of which it uses the inner products and the norm of
    combinations of rows. Any root of the Gramian has those of J, so the weights are the same.

    Args:
        n_tasks: tasks combined.
        max_norm: largest norm of the combined gradient; 0 for no limit.
        update_weights_every: the weights are computed anew every so many steps.
        optim_niter: iterations of the solver.
    """

    def __init__(
        self, n_tasks: int, max_norm: float, update_weights_every: int, optim_niter: int
    ) -> None:
        super().__init__()
        self.inner = NashMTL(n_tasks, max_norm, update_weights_every, optim_niter).weighting

    def forward(self, gramian: Tensor) -> Tensor:
        """Return weights (n,) of a Gramian (n, n)."""
        if self.inner.step > 0 and not hasattr(self.inner, "prob"):
            # TorchJD states its cvxpy problem at step 0 only, which a restored state is past.
            self.inner._init_optim_problem()
        with warnings.catch_warnings():
            # cvxpy's advice on how TorchJD should state its problem is of no use to a caller.
            warnings.filterwarnings("ignore", "You are solving a parameterized problem")
            weights: Tensor = self.inner(root(gramian))
        return weights


class EagerFAMO(FAMO):
    """FAMO (arXiv 2306.03792) whose optimiser exists from the start, so that it can be restored."""

    def __init__(self, n_tasks: int, lr: float, weight_decay: float) -> None:
        super().__init__(n_tasks, lr=lr, weight_decay=weight_decay)
        self._optimizer = Adam([self._w], lr=lr, weight_decay=weight_decay)


def grad_drop(n_tasks: int, leak: float) -> GradDrop:
    """GradDrop (arXiv 2010.06808) with the same leak for every task."""
    return GradDrop(leak=torch.full((n_tasks,), leak))


def fair_grad(tasks: tuple[str, ...], alpha: float, max_iters: int) -> nn.Module:
    """FairGrad (arXiv 2402.15638); `max_iters` 0 leaves the limit to scipy."""
    return FairGradWeighting(alpha, max_iters or None)


def krum(tasks: tuple[str, ...], n_byzantine: int, n_selected: int) -> nn.Module:
    """Krum (NeurIPS 2017), which compares each gradient with its neighbours'.

    Raises:
        ValueError: too few tasks.
    """
    _require(tasks, max(n_byzantine + 3, n_selected))
    return KrumWeighting(n_byzantine, n_selected)


def trimmed_mean(tasks: tuple[str, ...], trim_number: int) -> nn.Module:
    """Trimmed mean (arXiv 1803.01498), which drops the extremes of every coordinate.

    Raises:
        ValueError: too few tasks.
    """
    _require(tasks, 2 * trim_number + 1)
    return TrimmedMean(trim_number)


def root(gramian: Tensor) -> Tensor:
    """Return a matrix (n, n) whose Gramian is the given one, up to rounding."""
    values, vectors = torch.linalg.eigh(gramian)
    factor: Tensor = vectors * values.clamp(min=0).sqrt()
    return factor


def constant(tasks: tuple[str, ...], weights: Mapping[str, float]) -> Constant:
    """Losses times fixed weights; a task that is not named weighs 1.

    Raises:
        ValueError: a weight is given for an unknown task, or is no number.
    """
    for task, weight in weights.items():
        if task not in tasks:
            raise ValueError(f"the names of tasks, got '{task}'.{nearest(task, tasks)}")
        if not isinstance(weight, int | float) or not math.isfinite(weight):
            raise ValueError(f"a finite number for every task, got {weight!r} for '{task}'.")
    return Constant(torch.tensor([float(weights.get(task, 1.0)) for task in tasks]))


def _require(tasks: tuple[str, ...], least: int) -> None:
    if len(tasks) < least:
        raise ValueError(
            f"at least {least} tasks must share parameters, found {len(tasks)}: {', '.join(tasks)}."
        )
