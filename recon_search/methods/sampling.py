"""Steps that differentiate a few random tasks one by one, and all the others at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from recon_search import parallel
from recon_search.conflict.gramian import Gradients
from recon_search.methods.method import Others


class Sampling:
    """Draws tasks, and says what stands for the gradients of the others.

    With "mean" it is their mean, for each of them: CAGrad's practical speedup (arXiv 2110.14048,
    Section 3.3, equation 4), in which the average gradient stays exact. With "nothing" they do
    not count: stochastic sub-Jacobian descent (arXiv 2406.16232, Section 2.1), which combines
    random rows of the Jacobian. That paper's rows are of all parameters; here what only one task
    uses keeps that task's gradient in every step, drawn or not.

    Parameters that the others share among themselves alone get in the same way the combination of
    equal gradients, or zeros.

    Args:
        n_tasks: T.
        n: tasks drawn for each step, fewer than T.
        others: what stands for the gradients of those that are not.
    """

    def __init__(self, n_tasks: int, n: int, others: Others) -> None:
        self.n_tasks, self.n, self.others = n_tasks, n, others
        self._drawn: frozenset[int] | None = None
        self._together: set[int] = set()

    @property
    def drawn(self) -> frozenset[int]:
        """The tasks of this step, equal in all processes; drawn when first asked for."""
        if self._drawn is None:
            order: list[int] = torch.randperm(self.n_tasks, device="cpu").tolist()
            self._drawn = frozenset(parallel.agree(order[: self.n]))
        return self._drawn

    def divide(self, present: Collection[int], measured: Collection[int]) -> frozenset[int]:
        """Return the tasks with a loss to differentiate one by one, and note those that are not."""
        apart = self.drawn.union(measured).intersection(present)
        self._together.update(apart.symmetric_difference(present))
        return apart

    def end(self) -> None:
        """End the step."""
        self._drawn = None
        self._together.clear()

    def reached(
        self, rows: Gradients, declared: Mapping[nn.Parameter, Collection[int]]
    ) -> Gradients:
        """Return of every task what it reaches: of those not differentiated, what it should.

        Args:
            rows: T + 1 of them, the last that of the others at once.
            declared: the tasks that use a parameter.
        """
        found = [dict(row) for row in rows[: self.n_tasks]]
        for parameter, gradient in rows[-1].items():
            for task in self._together.intersection(declared[parameter]) or self._together:
                found[task][parameter] = gradient
        return found

    def mix(self, users: Sequence[int], like: Tensor) -> Tensor:
        """Return what is combined, a row each, as sums of the step's T + 1 gradients (m, T + 1).

        Args:
            users: the tasks with a loss that share something, in order; one keeps its gradient.
            like: a tensor of the type wanted.
        """
        drawn = [task for task in users if task in self.drawn]
        others = [task for task in users if task not in self.drawn]
        mean = like.new_zeros(self.n_tasks + 1)
        for task in others:
            mean[-1 if task in self._together else task] = 1 / len(others)
        known = torch.eye(self.n_tasks + 1, dtype=like.dtype, device=like.device)
        if self.others == "nothing" and len(users) > 1:
            return known[drawn]
        return torch.stack([known[task] if task in drawn else mean for task in users])
