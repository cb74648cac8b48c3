"""Toy networks: each has one thing that makes a rewrite go wrong, and an answer known by hand.

The weights of the arithmetic ones are small whole numbers, so that expected values are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.models import register_notrace_module
from timm.models.mvitv2 import MultiScaleAttention
from torch import Tensor, nn
from torch.nn import functional


def scalar(weight: float, bias: float | None = None) -> nn.Linear:
    """Return the map x -> weight * x + bias on one number."""
    layer = nn.Linear(1, 1, bias=bias is not None).double()
    nn.init.constant_(layer.weight, weight)
    if bias is not None:
        nn.init.constant_(layer.bias, bias)
    return layer


class Residual(nn.Module):
    """x -> stem(x) + body(stem(x)): a fork in `body` must reach the skip path of every task.

    With stem 2x and body 3x + 1, the input 1 gives 2 + 7 = 9.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = scalar(2)
        self.body = scalar(3, 1)
        self.head = scalar(1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.body(x))


class InPlace(nn.Module):
    """Overwrite a shared value with a split one, then read an alias of it once more.

    With base 2x and shift 3x, the input 1 gives u = 2 + 3 = 5, read as u + view(u) = 10.
    """

    def __init__(self) -> None:
        super().__init__()
        self.base = scalar(2)
        self.shift = scalar(3)

    def forward(self, x: Tensor) -> Tensor:
        u = self.base(x)
        alias = u.view(-1, 1)
        u.add_(self.shift(x))
        return u + alias


class Windowed(nn.Module):
    """An attention whose map timm's no-trace `cal_rel_pos_type` writes into; x is (B, 17, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = MultiScaleAttention(8, 8, (4, 4), num_heads=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.attention(x, (4, 4))[0]
        return out


class Tied(nn.Module):
    """Two maps with one weight: splitting it splits both. With weight 3, the input 1 gives 9."""

    def __init__(self) -> None:
        super().__init__()
        self.first = scalar(3)
        self.second = scalar(1)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


@register_notrace_module
class Whole(nn.Module):
    """A module that fx keeps whole, with two layers inside: x -> up(down(x)) if the sum is > 0."""

    def __init__(self) -> None:
        super().__init__()
        self.down = scalar(3)
        self.up = scalar(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x)) if bool(x.sum() > -1e9) else x


class Leafy(nn.Module):
    """A stem and a leaf with layers inside; with stem 2x the input 1 gives 12."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = scalar(2)
        self.leaf = Whole()

    def forward(self, x: Tensor) -> Tensor:
        return self.leaf(self.stem(x))


class Normed(nn.Module):
    """A map, then a BatchNorm called as a module and one called as a function."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.map = nn.Linear(3, width)
        self.norm = nn.BatchNorm1d(width)
        self.second = nn.BatchNorm1d(width)
        self.wrap = Functional(self.second)

    def forward(self, x: Tensor) -> Tensor:
        return self.wrap(self.norm(self.map(x)))


class Functional(nn.Module):
    """Normalise through `F.batch_norm` with another module's statistics, as BatchNormAct2d does."""

    def __init__(self, norm: nn.BatchNorm1d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm
        if self.training:
            n.num_batches_tracked.add_(1)
        return functional.batch_norm(
            x, n.running_mean, n.running_var, n.weight, n.bias, self.training, n.momentum, n.eps
        )


class Moody(nn.Module):
    """Drop everything while training (dropout with p = 1), nothing while evaluating."""

    def __init__(self) -> None:
        super().__init__()
        self.map = scalar(2)

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(self.map(x), 1.0, training=self.training)


class Optional(nn.Module):
    """Branch on a second argument, which a graph of the first one alone must freeze."""

    def __init__(self) -> None:
        super().__init__()
        self.map = scalar(2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None:
            x = x * mask
        return self.map(x)


class Constant(nn.Module):
    """Add a tensor made during the forward pass. With map 2x the input 1 gives 2 + 5 = 7."""

    def __init__(self) -> None:
        super().__init__()
        self.map = scalar(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x) + torch.tensor([5.0], dtype=torch.float64)


@register_notrace_module
class Biased(nn.Module):
    """Add a bias that is kept outside the registries while evaluating, as tiny_vit does."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.attention_bias_cache: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return x + self.bias
        if "cpu" not in self.attention_bias_cache:
            self.attention_bias_cache["cpu"] = self.bias * 1
        return x + self.attention_bias_cache["cpu"]


class Cached(nn.Module):
    """A map and a cached bias; with map 2x and bias 1 the input 1 gives 3."""

    def __init__(self) -> None:
        super().__init__()
        self.map = scalar(2)
        self.biased = Biased()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.biased(self.map(x))
        return out


class Idle(nn.Module):
    """Own a parameter and a layer that the forward pass never uses."""

    def __init__(self) -> None:
        super().__init__()
        self.map = scalar(2)
        self.spare = nn.Parameter(torch.ones(3, dtype=torch.float64))
        self.bench = scalar(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x)


class Fickle(nn.Module):
    """Branch on the values of the input: no graph holds for all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.map = scalar(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x) if x.sum() > 0 else x


class Pair(nn.Module):
    """Two maps, `first` 2x and `second` 3x, and whatever a test computes with them."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.first = scalar(2)
        self.second = scalar(3)
        self.run = run
        self.calls = 0
        self.register_buffer("mean", torch.zeros(1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


@register_notrace_module
class Twofold(nn.Module):
    """Return one tensor twice: as it is and as a view."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x * 1
        return x, x.view(-1, 1)


@register_notrace_module
class Stealthy(nn.Module):
    """Write into the first argument past autograd's version counter, as custom kernels do."""

    def forward(self, x: Tensor, by: Tensor) -> Tensor:
        x.data.add_(by)
        return x * 1
