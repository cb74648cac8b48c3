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

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recon_search import parallel
from recon_search.errors import TrainingError
from recon_search.methods.gradients import add_to_grad
from recon_search.methods.losses import check_losses
from recon_search.methods.orthogonal import Rotation
from recon_search.methods.protocol import Measure, Surgeon
from recon_search.methods.reading import Readings, differentiate
from recon_search.methods.scaling import Scaling
from recon_search.methods.skipping import Skipping, name_fault
from recon_search.model.rotation import (
    RotatedHead,
    add_rotations,
    check_heads,
    check_reads,
    fold_rotations,
)

EPSILON = 1e-15
"""The smallest norm divided by, as in the authors' package."""


class RotoGrad(Skipping):
    """RotoGrad for one training; puts rotations before the model's heads. A `Surgeon`.

    The matrices are computed from their parameters only when those change: with `every` n, once in
    n steps, for the mean gradient of these steps. With `every` 1 and `map` `matrix_exp` an unsplit
    network gets exactly the gradients of the authors' package `rotograd` 0.1.6.

    A head's own parameters get their task's gradient. What heads share is left to the combiner,
    like the backbone and all else that lies before the features.

    Args:
        model: a module with `heads`, which are replaced by rotated heads.
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
        TrainingError: the heads read features of several widths, or hold parameters of the
            backbone; the model is as it was.
    """

    def __init__(
        self,
        model: Any,
        combiner: Surgeon,
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
        backbone = getattr(model, "backbone", None)
        check_reads(backbone)
        check_heads(model.heads, backbone)
        add_rotations(model.heads)
        self.heads: dict[str, RotatedHead] = dict(model.heads.items())
        self.tasks = tuple(self.heads)
        self.own = {task: _own_parameters(model, head) for task, head in self.heads.items()}
        self.trainable = [
            index
            for index, head in enumerate(self.heads.values())
            if any(p.requires_grad for part in (head, backbone) if part for p in part.parameters())
        ]
        self.combiner = combiner
        self.scaling = getattr(combiner, "scaling", None) or Scaling()
        self.rescale = rescale
        self.decay = decay
        self.every = every
        self.burn_in = burn_in
        self.normalize_losses = normalize_losses
        rotations = [Rotation(head.rotation, map) for head in self.heads.values()]
        self.rotations = dict(zip(self.tasks, rotations, strict=True))
        self.optimizer = torch.optim.Adam(nn.ModuleList(rotations).parameters(), lr=lr)
        self.n_batches = dict.fromkeys(self.heads, 0)
        self.n_steps = 0
        self.first_losses: dict[str, Tensor] = {}
        self.first_norms: dict[str, Tensor] = {}
        self.pulls: dict[str, Tensor] = {}  # (d, d), see _pull
        self.n_pulls = 0
        self._fault: str | None = None  # of the step so far
        self.readings = Readings(self.heads)
        self._evaluate()

    def backward(
        self,
        losses: Mapping[str, Tensor | None],
        features: Mapping[str, Tensor] | None = None,
        measure: Measure = False,
    ) -> Tensor | None:
        """Differentiate the losses of a step of one batch: as `Surgeon.backward`."""
        self.accumulate(losses, features, measure=measure)
        return self.combine(measure=measure)

    def accumulate(
        self,
        losses: Mapping[str, Tensor | None],
        features: Mapping[str, Tensor] | None = None,
        *,
        share: float = 1.0,
        measure: Measure = False,
    ) -> None:
        """Differentiate one batch: heads here, the backbone through the combiner.

        Gradients of features exist a batch at a time, so directions, norms and the burn-in are
        taken of every batch, also where several are accumulated.

        Args:
            losses: one scalar a task; tasks left out take no part.
            features: what each task's head read, before its rotation; what the heads read last
                if None.
            share: the weight of this batch.
            measure: keep the tasks' gradients for Gramians.

        Raises:
            TrainingError: losses or features do not fit; nothing has changed.
        """
        present = check_losses(losses, self.tasks, self.trainable)
        named = {self.tasks[index]: loss for index, loss in present.items()}
        read = self.readings.take(named, features)
        first_losses = self._first_losses(named) if self.normalize_losses else {}
        named.update({task: named[task] / first for task, first in first_losses.items()})
        found = {
            task: differentiate(task, loss, self.heads[task], read[task], self.scaling)
            for task, loss in named.items()
        }
        self.readings.clear()  # checkpointed heads have just read again
        used = {task: one.features for task, one in found.items() if one.features is not None}
        gradients = {t: one.of_features for t, one in found.items() if one.of_features is not None}
        _check_shapes(gradients)
        self.first_losses.update(first_losses)
        for task, one in found.items():
            for parameter, gradient in one.of_parameters.items():
                if parameter in self.own[task]:
                    add_to_grad(parameter, gradient * share)
        if not gradients:
            return
        mean = sum(gradients.values()) / len(gradients)
        assert isinstance(mean, Tensor)
        norm_of_mean, *norms = _norms([mean, *gradients.values()])
        norm = {task: own.clamp_min(EPSILON) for task, own in zip(gradients, norms, strict=True)}
        finite = torch.stack(norms).isfinite()
        if bool(finite.all()):
            self._pull(gradients, norm, norm_of_mean)
            if self.rescale:
                gradients = self._rescaled(gradients, norm)
            for task in gradients:
                self.n_batches[task] += 1
        else:
            name = "rotograd" if self.rescale else "rotate-only"
            self._fault = name_fault(name, list(gradients)[int((~finite).nonzero()[0])])
        surrogates = {}
        for task, gradient in gradients.items():
            surrogates[task] = (used[task].to(gradient.dtype) * gradient).sum()
            for parameter, own in found[task].of_parameters.items():
                if parameter not in self.own[task]:
                    surrogates[task] = surrogates[task] + (parameter * own).sum()
        self.combiner.accumulate(surrogates, used, share=share, measure=measure)

    def combine(self, *, measure: Measure = False) -> Tensor | None:
        """Set the backbone's `.grad`; returns Gramians of the rescaled gradients if `measure`."""
        parallel.average_gradients(p for h in self.heads.values() for p in h.parameters())
        gramians = self.combiner.combine(measure=measure)
        fault, self._fault = self._fault or getattr(self.combiner, "fault", None), None
        if fault is not None:
            self._skip(fault)
            return None
        self._go_on()
        return gramians

    def step(self, forward: object = None) -> None:
        """Move the rotations, every `every` steps; call it after the network's optimiser."""
        self.n_steps += 1
        if self.n_steps % self.every or not self.n_pulls:
            return
        for task, pull in self.pulls.items():
            self.rotations[task].pull(pull.double() / self.n_pulls)
        self.pulls, self.n_pulls = {}, 0
        self.optimizer.step()
        self.optimizer.zero_grad()
        for group in self.optimizer.param_groups:
            group["lr"] *= self.decay**self.every
        self._evaluate()

    def finish(self, model: Any) -> None:
        """Fold the rotations into the heads that begin with a linear layer."""
        self.readings.stop()
        fold_rotations(model.heads)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values."""
        return {
            "combiner": self.combiner.state_dict(),
            "rotations": {task: one.state_dict() for task, one in self.rotations.items()},
            "optimizer": self.optimizer.state_dict(),
            **{name: getattr(self, name) for name in self._PLAIN},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self.combiner.load_state_dict(state["combiner"])
        for task, rotation in self.rotations.items():
            rotation.restore(state["rotations"][task])
        self.optimizer.load_state_dict(state["optimizer"])
        device = self.optimizer.param_groups[0]["params"][0].device
        for name in self._PLAIN:
            value = state[name]
            if isinstance(value, dict):
                value = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in value.items()}
            setattr(self, name, value)
        self._evaluate()

    _PLAIN = ("n_batches", "n_steps", "first_losses", "first_norms", "pulls", "n_pulls")

    def _first_losses(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What losses are divided by: their values at the start or at the end of the burn-in."""
        return {
            task: parallel.mean([loss.detach()])[0]
            if self.n_batches[task] in (0, self.burn_in)
            else self.first_losses[task]
            for task, loss in losses.items()
        }

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


def _own_parameters(model: Any, head: nn.Module) -> frozenset[nn.Parameter]:
    """The parameters of a head that nothing else in the model holds."""
    parts = [model] if isinstance(model.heads, nn.Module) else [model, *dict(model.heads).values()]
    held = Counter(p for m in parts for _, p in m.named_parameters(remove_duplicate=False))
    inside = Counter(p for _, p in head.named_parameters(remove_duplicate=False))
    return frozenset(p for p, count in inside.items() if held[p] <= count)


def _check_shapes(gradients: Mapping[str, Tensor]) -> None:
    """Make sure that there is a mean of the tasks' gradients."""
    shapes = {task: tuple(gradient.shape) for task, gradient in gradients.items()}
    if len(set(shapes.values())) > 1:
        raise TrainingError(
            "RotoGrad compares the gradients of the same images' features: those of all tasks must "
            f"have one shape, got {shapes}. Give the tasks equal batches, or use another method."
        )
