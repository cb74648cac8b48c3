"""A rotation that an optimiser can move."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal


class Rotation(nn.Module):
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

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take start and parameters from another's `state_dict`."""
        start = state.get("start")
        self.start = None if start is None else start.to(next(self.parameters()))
        self.load_state_dict(state)

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
