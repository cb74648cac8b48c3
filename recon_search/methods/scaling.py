"""Losses scaled while they are differentiated, so that half precision loses no gradient."""

from __future__ import annotations

import torch
from torch import Tensor


class Scaling:
    """A factor on every loss that is differentiated, and its inverse on every gradient found.

    Small gradients vanish in float16. A method sees none of this: its losses are the true ones, and
    so are its gradients, which are kept in single precision. Powers of two change no digit.

    Attributes:
        factor: a scalar; None for none.
    """

    def __init__(self) -> None:
        self.factor: Tensor | None = None

    def up(self, loss: Tensor) -> Tensor:
        """Return what to differentiate instead of a loss."""
        return loss if self.factor is None else loss * self.factor

    def down(self, gradients: list[Tensor]) -> list[Tensor]:
        """Return the gradients of what `up` was given; half precision becomes single."""
        if self.factor is None or not gradients:
            return gradients
        whole = [g.float() if g.dtype == torch.float16 else g for g in gradients]
        return list(torch._foreach_mul(whole, self.factor.reciprocal()))
