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

import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from recon_search import parallel
from recon_search.errors import TrainingError
from recon_search.methods.gradients import add_to_grad
from recon_search.methods.losses import check_losses
from recon_search.methods.skipping import Skipping, name_fault
from recon_search.model.rotation import (
    RotatedHead,
    add_rotations,
    check_features,
    fold_rotations,
    input_width,
)

if TYPE_CHECKING:
    from recon_search.methods.surgeon import Measure, Surgeon

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
        _check_heads(model)
        add_rotations(model.heads)
        self.heads: dict[str, RotatedHead] = dict(model.heads.items())
        self.tasks = tuple(self.heads)
        self.own = {task: _own_parameters(model, head) for task, head in self.heads.items()}
        backbone = getattr(model, "backbone", None)
        self.trainable = [
            index
            for index, head in enumerate(self.heads.values())
            if any(p.requires_grad for part in (head, backbone) if part for p in part.parameters())
        ]
        self.combiner = combiner
        self.rescale = rescale
        self.decay = decay
        self.every = every
        self.burn_in = burn_in
        self.normalize_losses = normalize_losses
        rotations = [_Rotation(head.rotation, map) for head in self.heads.values()]
        self.rotations = dict(zip(self.tasks, rotations, strict=True))
        self.optimizer = torch.optim.Adam(nn.ModuleList(rotations).parameters(), lr=lr)
        self.n_batches = dict.fromkeys(self.heads, 0)
        self.n_steps = 0
        self.first_losses: dict[str, Tensor] = {}
        self.first_norms: dict[str, Tensor] = {}
        self.pulls: dict[str, Tensor] = {}  # (d, d), see _pull
        self.n_pulls = 0
        self._fault: str | None = None  # of the step so far
        self._read = self._nothing_read()
        self._readers = {task: _Reader(task, self) for task in self.heads}
        for task, head in self.heads.items():
            head.reader = self._readers[task]
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
        read = self._take_features(named, features)
        found = {task: self._differentiate(task, loss, read[task]) for task, loss in named.items()}
        self._read = self._nothing_read()  # checkpointed heads have just read again
        gradients = {task: one.gradient for task, one in found.items() if one.gradient is not None}
        used = {task: one.features for task, one in found.items() if one.features is not None}
        _check_shapes(gradients)
        for one in found.values():
            for parameter, gradient in one.own.items():
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
            surrogates[task] = (used[task] * gradient.to(used[task].dtype)).sum()
            for parameter, own in found[task].shared.items():
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

    def end_epoch(self) -> None:
        """Nothing happens at the end of an epoch."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Nothing that the network's optimiser should move."""
        return iter(())

    def finish(self, model: Any) -> None:
        """Fold the rotations into the heads that begin with a linear layer."""
        for head in self.heads.values():
            head.reader = None
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
            rotation.load_state_dict(state["rotations"][task])
        self.optimizer.load_state_dict(state["optimizer"])
        device = self.optimizer.param_groups[0]["params"][0].device
        for name in self._PLAIN:
            value = state[name]
            if isinstance(value, dict):
                value = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in value.items()}
            setattr(self, name, value)
        self._evaluate()

    _PLAIN = ("n_batches", "n_steps", "first_losses", "first_norms", "pulls", "n_pulls")

    def __getstate__(self) -> dict[str, Any]:
        """A copy waits for features of its own."""
        return {**self.__dict__, "_read": self._nothing_read()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for reader in self._readers.values():
            reader.serve(self)

    def _nothing_read(self) -> dict[str, deque[Tensor]]:
        """Two readings a task are enough to find out that there was more than one."""
        return {task: deque(maxlen=2) for task in self.tasks}

    def _take_features(
        self, losses: Mapping[str, Tensor], features: Mapping[str, Tensor] | None
    ) -> dict[str, list[Tensor]]:
        """What each task's head may have read; forgets what was kept."""
        read, self._read = self._read, self._nothing_read()
        if features is None:
            return {task: list(read[task]) for task in losses}
        for task in losses:
            if task not in features:
                raise TrainingError(
                    f"`features` must hold what the head of every task with a loss read, got "
                    f"{list(features)} without '{task}'. Add it, or pass None."
                )
            check_features(features[task], len(self.heads[task].rotation))
        return {task: [features[task]] for task in losses}

    def _differentiate(self, task: str, loss: Tensor, read: Sequence[Tensor]) -> _Found:
        """Differentiate for a head's parameters and for the features that it read."""
        if self.normalize_losses:
            if self.n_batches[task] in (0, self.burn_in):
                self.first_losses[task] = parallel.mean([loss.detach()])[0]
            loss = loss / self.first_losses[task]
        features = list(dict.fromkeys(one for one in read if one.requires_grad))
        parameters = [p for p in self.heads[task].parameters() if p.requires_grad]
        wanted = [*features, *parameters]
        found = torch.autograd.grad(loss, wanted, allow_unused=True) if wanted else ()
        reached = {one: own for one, own in zip(wanted, found, strict=True) if own is not None}
        used = [one for one in features if one in reached]
        if len(used) > 1 or (reached and not used and (features or not read)):
            raise TrainingError(
                f"The loss of task '{task}' must come from features that model.heads['{task}'] "
                f"read once since the last step, it comes from {len(used) or 'none'} of them. Call "
                "the head once, or pass `features`."
            )
        gradient = reached[used[0]] if used else None
        if gradient is not None and gradient.dtype in (torch.bfloat16, torch.float16):
            gradient = gradient.float()
        own = {p: reached[p] for p in parameters if p in reached}
        return _Found(
            used[0] if used else None,
            gradient,
            {p: own[p] for p in own if p in self.own[task]},
            {p: own[p] for p in own if p not in self.own[task]},
        )

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


@dataclass(frozen=True)
class _Found:
    """What a task's loss gives a head.

    Attributes:
        features: those that it read, None if nothing is to be differentiated for them.
        gradient: of the features, in single precision at least.
        own: gradients of parameters that only this head has.
        shared: gradients of the head's other parameters.
    """

    features: Tensor | None
    gradient: Tensor | None
    own: dict[nn.Parameter, Tensor]
    shared: dict[nn.Parameter, Tensor]


class _Reader:
    """Tells RotoGrad what a head read; a copy or pickle tells nobody, unless RotoGrad's own."""

    def __init__(self, task: str, rotograd: RotoGrad) -> None:
        self.task = task
        self.serve(rotograd)

    def serve(self, rotograd: RotoGrad) -> None:
        """Tell this one from now on, as long as it lives."""
        self._served: Callable[[], RotoGrad | None] = weakref.ref(rotograd)

    def __call__(self, features: Tensor) -> None:
        rotograd = self._served()
        if rotograd is not None and torch.is_grad_enabled():
            rotograd._read[self.task].append(features)

    def __getstate__(self) -> dict[str, Any]:
        return {"task": self.task}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.task = state["task"]
        self._served = _nobody


def _nobody() -> None:
    """What the reader of a copied head serves."""


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
        self.turned: Tensor | None = None  # Q, without a graph, so that copies can be made

    def forward(self) -> Tensor:
        """Compute R (d, d), which carries no graph."""
        with torch.no_grad():
            self.turned = self.weight
        return self.turned if self.start is None else self.start @ self.turned

    def pull(self, by: Tensor) -> None:
        """Set the parameters' gradient where that of R is R P, for P = `by` (d, d).

        Then that of Q is Q P. Of a Cayley map Q = (I - A/2)^-1 (I + A/2) of A = X - X^T, with
        M = (I - A/2)^-1 = (Q + I)/2 and so dQ = M dA M and M^T Q = M, the gradient of A is M P M^T:
        two products in place of autograd's triangular solves.
        """
        assert self.turned is not None
        if not self.is_cayley:
            with torch.enable_grad():
                self.weight.backward(self.turned @ by)  # type: ignore[no-untyped-call]
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


def _own_parameters(model: Any, head: nn.Module) -> frozenset[nn.Parameter]:
    """The parameters of a head that nothing else in the model holds."""
    parts = [model] if isinstance(model.heads, nn.Module) else [model, *dict(model.heads).values()]
    held = Counter(p for m in parts for _, p in m.named_parameters(remove_duplicate=False))
    inside = Counter(p for _, p in head.named_parameters(remove_duplicate=False))
    return frozenset(p for p, count in inside.items() if held[p] <= count)


def _check_heads(model: Any) -> None:
    """Make sure that all heads read features of one width, and share nothing with the backbone."""
    widths = {task: input_width(head) for task, head in model.heads.items()}
    if len(set(widths.values())) > 1:
        raise TrainingError(
            "RotoGrad compares the tasks' features: all heads must read equally many, got "
            f"{widths}. Give the heads one width, or use another method."
        )
    backbone = set(model.backbone.parameters()) if hasattr(model, "backbone") else set()
    for task, head in model.heads.items():
        if not backbone.isdisjoint(head.parameters()):
            raise TrainingError(
                "RotoGrad differentiates heads apart from the backbone: a head must hold no "
                f"parameter of the backbone, that of '{task}' holds one. Give the head its own, or "
                "use another method."
            )


def _check_shapes(gradients: Mapping[str, Tensor]) -> None:
    """Make sure that there is a mean of the tasks' gradients."""
    shapes = {task: tuple(gradient.shape) for task, gradient in gradients.items()}
    if len(set(shapes.values())) > 1:
        raise TrainingError(
            "RotoGrad compares the gradients of the same images' features: those of all tasks must "
            f"have one shape, got {shapes}. Give the tasks equal batches, or use another method."
        )
