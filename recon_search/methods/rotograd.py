"""RotoGrad (arXiv 2103.02631) on unsplit and on split networks.

Each task's head reads its features rotated, r_t = R_t z_t. The rotations learn, by an optimiser of
their own whose learning rate decays (the leader of the paper's two-player game), to turn the tasks'
gradients u_t = dL_t/dz_t towards one another as the heads see them; `rotograd` also rescales the
u_t to a common norm before they go down into the backbone.

On a split network z differs by task: u_t is taken of the task's own features, the target direction
is formed of all u_t, and each rescaled u_t goes down its own task's path. The backbone's gradient
is then whatever `combiner` makes of the tasks' paths: their sum for RotoGrad as published.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from recon_search import parallel
from recon_search.model.container import TaskModules
from recon_search.model.rotation import RotatedHead, add_rotations, fold_rotations

EPSILON = 1e-15
"""The smallest norm divided by, as in the authors' package."""


class Combiner(Protocol):
    """What turns the tasks' losses into the gradients of shared parameters."""

    def accumulate(
        self,
        losses: Mapping[str, Tensor],
        features: Mapping[str, Tensor],
        *,
        share: float = 1.0,
        measure: bool = False,
    ) -> None:
        """Differentiate one batch's losses; `features` is what each task's head read."""

    def combine(self, *, measure: bool = False) -> Tensor | None:
        """Set `.grad`; return the layers' Gramians (L, T, T) if `measure`."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""


class HasHeads(Protocol):
    """A model whose heads read one feature tensor a task."""

    heads: nn.ModuleDict


class RotoGrad:
    """RotoGrad for one training; puts rotations before the model's heads.

    The matrices are computed from their parameters only when those change: with `every` n, once in
    n steps, for the mean gradient of these steps. With `every` 1 and `map` `matrix_exp` an unsplit
    network gets exactly the gradients of the authors' package `rotograd` 0.1.6.

    Args:
        model: its heads are replaced by rotated heads.
        combiner: of the backbone's gradients.
        rescale: bring the tasks' gradients to a common norm, as `rotograd` does and `rotate-only`
            does not.
        lr: of the rotations' Adam.
        decay: factor on that learning rate after every step.
        every: the rotations move every so many steps.
        map: how skew-symmetric matrices become rotations, `cayley` or `matrix_exp`. Equal to second
            order; the former costs a tenth.
        burn_in: the steps after which the losses and gradient norms that later ones are measured
            against are taken anew.
        normalize_losses: differentiate each loss divided by its value at the first step, and after
            the burn-in by that at its end.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        model: HasHeads,
        combiner: Combiner,
        *,
        rescale: bool,
        lr: float,
        decay: float,
        every: int,
        map: str,
        burn_in: int,
        normalize_losses: bool,
        weighting: str = "joint",
    ) -> None:
        if lr <= 0 or not 0 < decay <= 1 or every < 1 or map not in ("cayley", "matrix_exp"):
            raise ValueError(
                "`lr` must be above 0, `decay` in (0, 1], `every` at least 1, `map` 'cayley' or "
                "'matrix_exp'."
            )
        add_rotations(model.heads)
        self.heads: dict[str, RotatedHead] = dict(model.heads.items())  # type: ignore[arg-type]
        self.combiner = combiner
        self.rescale = rescale
        self.decay = decay
        self.every = every
        self.burn_in = burn_in
        self.normalize_losses = normalize_losses
        self.rotations = TaskModules(
            {task: _Rotation(head.rotation, map) for task, head in self.heads.items()}
        )
        self.optimizer = torch.optim.Adam(self.rotations.parameters(), lr=lr)
        self.n_batches = dict.fromkeys(self.heads, 0)
        self.n_steps = 0
        self.first_losses: dict[str, Tensor] = {}
        self.first_norms: dict[str, Tensor] = {}
        self.pulls: dict[str, Tensor] = {}  # (d, d), see _pull
        self.n_pulls = 0
        self._evaluate()

    def accumulate(
        self,
        losses: Mapping[str, Tensor],
        features: Mapping[str, Tensor],
        *,
        share: float = 1.0,
        measure: bool = False,
    ) -> None:
        """Differentiate one batch: heads here, the backbone through the combiner.

        Gradients of features exist a batch at a time, so directions, norms and the burn-in are
        taken of every batch, also where several are accumulated.

        Args:
            losses: one scalar a task; tasks left out take no part.
            features: what each task's head read, before its rotation.
            share: the weight of this batch.
            measure: keep the tasks' gradients for Gramians.
        """
        gradients = {
            task: self._differentiate_head(task, loss, features[task], share)
            for task, loss in losses.items()
            if loss.requires_grad
        }
        reached = {task: found for task, found in gradients.items() if found is not None}
        if not reached:
            return
        mean = sum(reached.values()) / len(reached)
        assert isinstance(mean, Tensor)
        norm_of_mean, *norms = _norms([mean, *reached.values()])
        norm = {task: own.clamp_min(EPSILON) for task, own in zip(reached, norms, strict=True)}
        self._pull(reached, norm, norm_of_mean)
        if self.rescale:
            reached = self._rescaled(reached, norm)
        for task in reached:
            self.n_batches[task] += 1
        surrogates = {
            task: (features[task] * gradient.to(features[task].dtype)).sum()
            for task, gradient in reached.items()
        }
        self.combiner.accumulate(surrogates, features, share=share, measure=measure)

    def combine(self, *, measure: bool = False) -> Tensor | None:
        """Set the backbone's `.grad`; returns Gramians of the rescaled gradients if `measure`."""
        parallel.average_gradients(p for h in self.heads.values() for p in h.parameters())
        return self.combiner.combine(measure=measure)

    def step(self, forward: object = None) -> None:
        """Move the rotations, every `every` steps; call it after the network's optimiser."""
        self.n_steps += 1
        if self.n_steps % self.every or not self.n_pulls:
            return
        for task, pull in self.pulls.items():
            self.rotations[task].pull(pull.double() / self.n_pulls)  # type: ignore[operator]
        self.pulls, self.n_pulls = {}, 0
        self.optimizer.step()
        self.optimizer.zero_grad()
        for group in self.optimizer.param_groups:
            group["lr"] *= self.decay**self.every
        self._evaluate()

    def end_epoch(self) -> None:
        """Nothing happens at the end of an epoch."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Nothing that the network's optimiser should move."""
        return iter(())

    def finish(self, model: HasHeads) -> None:
        """Fold the rotations into the heads that begin with a linear layer."""
        fold_rotations(model.heads)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values."""
        return {
            "combiner": self.combiner.state_dict(),
            "rotations": self.rotations.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **{name: getattr(self, name) for name in self._PLAIN},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self.combiner.load_state_dict(state["combiner"])
        self.rotations.load_state_dict(state["rotations"])
        self.optimizer.load_state_dict(state["optimizer"])
        device = next(self.rotations.parameters()).device
        for name in self._PLAIN:
            value = state[name]
            if isinstance(value, dict):
                value = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in value.items()}
            setattr(self, name, value)
        self._evaluate()

    _PLAIN = ("n_batches", "n_steps", "first_losses", "first_norms", "pulls", "n_pulls")

    def _differentiate_head(
        self, task: str, loss: Tensor, features: Tensor, share: float
    ) -> Tensor | None:
        """Add to the head's `.grad`; return the gradient of its features, if they have one."""
        if self.normalize_losses:
            if self.n_batches[task] in (0, self.burn_in):
                self.first_losses[task] = parallel.mean([loss.detach()])[0]
            loss = loss / self.first_losses[task]
        parameters = [p for p in self.heads[task].parameters() if p.requires_grad]
        wanted = [features, *parameters] if features.requires_grad else parameters
        if not wanted:
            return None
        found = list(torch.autograd.grad(loss, wanted, allow_unused=True))
        gradient = found.pop(0) if features.requires_grad else None
        for parameter, own in zip(parameters, found, strict=True):
            if own is not None:
                own = own * share
                parameter.grad = own if parameter.grad is None else parameter.grad + own
        if gradient is None or gradient.dtype not in (torch.bfloat16, torch.float16):
            return gradient
        return gradient.float()

    def _pull(
        self, gradients: Mapping[str, Tensor], norms: Mapping[str, Tensor], norm_of_mean: Tensor
    ) -> None:
        """Add up what the rotations' losses ask of them (paper, equation 8 and algorithm 1).

        The loss of R_t is the sum over the batch of ||R_t v - R_t u_t||^2 with the second term
        held fixed, v the mean of the u_t scaled to the norm of their mean. Its gradient is
        R_t (2 sum (v - u_t) v^T), and only the bracket depends on the batch. As in the authors'
        package, maps take the mean over the batch in place of the sum.

        Of several processes each has its own images' u_t, for a loss that is the mean over its
        share of the batch, so they are n times those of the whole batch.
        """
        target = sum(u * (norm_of_mean / norms[task]) for task, u in gradients.items())
        assert isinstance(target, Tensor)
        v = _rows(target / len(gradients))  # (N, d)
        n = parallel.size()
        pulls = {task: 2 * (v - _rows(u)).T @ v for task, u in gradients.items()}  # (d, d) each
        pulls = dict(zip(pulls, parallel.mean(list(pulls.values())), strict=True))
        for task, gradient in gradients.items():
            pull = pulls[task] / n  # the sum of n parts, each n^2 too large
            if gradient.ndim > 2:
                pull = pull / (len(gradient) * n)
            self.pulls[task] = self.pulls[task] + pull if task in self.pulls else pull
        self.n_pulls += 1

    def _rescaled(
        self, gradients: Mapping[str, Tensor], norms: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Scale to the common norm sum_t a_t ||u_t||, a_t ~ ||u_t|| / ||u_t at the start||."""
        for task, norm in norms.items():
            if self.n_batches[task] in (0, self.burn_in):
                self.first_norms[task] = norm
        ratios = {task: norm / self.first_norms[task] for task, norm in norms.items()}
        total = torch.stack(list(ratios.values())).sum().clamp_min(EPSILON)
        common = torch.stack([ratios[task] / total * norms[task] for task in norms]).sum()
        return {task: u * (common / norms[task]) for task, u in gradients.items()}

    def _evaluate(self) -> None:
        """Compute the matrices from their parameters."""
        for task, rotation in self.rotations.items():
            self.heads[task].rotation.copy_(rotation())


class _Rotation(nn.Module):
    """A square matrix R = R_0 Q that stays orthogonal, Q the identity at first.

    In double precision: rounding in single precision alone passes 1e-6 for large matrices. Torch's
    own way to start elsewhere than at the identity, a trivialization, multiplies by the start even
    where that is the identity, which at d = 512 is a fifth of the cost.
    """

    weight: Tensor
    start: Tensor | None

    def __init__(self, start: Tensor, orthogonal_map: str) -> None:
        super().__init__()
        start = start.double()
        is_identity = torch.equal(start, torch.eye(len(start)).to(start))
        self.register_buffer("start", None if is_identity else start.clone())
        self.weight = nn.Parameter(torch.zeros_like(start))
        orthogonal(self, orthogonal_map=orthogonal_map, use_trivialization=False)
        self.is_cayley = orthogonal_map == "cayley"
        self.turned: Tensor | None = None  # Q, with its graph unless its gradient is known

    def forward(self) -> Tensor:
        """Compute R (d, d), which carries no graph."""
        with torch.set_grad_enabled(not self.is_cayley):
            self.turned = self.weight
        turned = self.turned.detach()
        return turned if self.start is None else self.start @ turned

    def pull(self, by: Tensor) -> None:
        """Set the parameters' gradient where that of R is R P, for P = `by` (d, d).

        Then that of Q is Q P. Of a Cayley map Q = (I - A/2)^-1 (I + A/2) of A = X - X^T, with
        M = (I - A/2)^-1 = (Q + I)/2 and so dQ = M dA M and M^T Q = M, the gradient of A is M P M^T:
        two products in place of autograd's triangular solves.
        """
        assert self.turned is not None
        if not self.is_cayley:
            self.turned.backward(self.turned.detach() @ by)  # type: ignore[no-untyped-call]
            return
        m = self.turned / 2
        m.diagonal().add_(0.5)
        k = m @ by @ m.T
        (parameter,) = self.parameters()
        parameter.grad = (k - k.T).tril()


def _norms(gradients: Sequence[Tensor]) -> list[Tensor]:
    """Norms of the whole batch's gradients; see `_pull` for what one of n processes holds."""
    own = [gradient.norm() for gradient in gradients]
    n = parallel.size()
    if n == 1:
        return own
    squares = torch.stack([norm.square() for norm in own])
    return list((parallel.mean([squares])[0] / n).sqrt())


def _rows(tensor: Tensor) -> Tensor:
    """Bring (B, d) or (B, d, H, W) to (N, d)."""
    return tensor if tensor.ndim == 2 else tensor.movedim(1, -1).flatten(0, -2)
