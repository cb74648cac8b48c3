"""What the private copies of layers are: whole, one weight with low-rank updates, or gated norms.

They are parametrisations of a branched network's copies. What is computed so is an ordinary weight
to whoever reads it: `task_state_dict`, `single` and exports give plain timm tensors.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from recon_search import artefact
from recon_search.graph.analysis import Analysis
from recon_search.graph.branched import BranchedBackbone
from recon_search.graph.changes import readers
from recon_search.graph.layout import Layout
from recon_search.graph.partition import blocks
from recon_search.graph.split import Split
from recon_search.graph.tensors import find
from recon_search.model.network import MultiTaskModel
from recon_search.recipe import CopyConfig


class LowRank(nn.Module):
    """A weight plus the product of two thin matrices, which is 0 at first (LoRA, arXiv 2106.09685).

    LoRA freezes the weight and scales the product by a constant. Here the weight is trained, by all
    copies that have it in common, and the product is taken as it is.

    Args:
        weight: of any shape (n, ...), read as the matrix (n, m).
        rank: of the product, at most.
        generator: draws the matrix that is not 0.

    Attributes:
        up: (n, rank), zeros.
        down: (rank, m).
    """

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        n, m = len(weight), weight[0].numel()
        drawn = torch.empty(rank, m).uniform_(-1, 1, generator=generator) / math.sqrt(m)
        self.up = nn.Parameter(weight.new_zeros(n, rank))
        self.down = nn.Parameter(drawn.to(weight))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight of this copy."""
        return weight + (self.up @ self.down).view_as(weight)


class Gate(nn.Module):
    """A sigmoid a channel that multiplies the affine parameters of a norm.

    Half open at first, and the parameters double, so that the norm computes what it did.

    Args:
        weight: of the norm, (n,).
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.zeros_like(weight.detach()))

    def forward(self, affine: Tensor) -> Tensor:
        """Return weight or bias as the norm applies it."""
        return self.logit.sigmoid() * affine

    def right_inverse(self, affine: Tensor) -> Tensor:
        """Return what the gate makes `affine` of."""
        return affine / self.logit.sigmoid()


class _Copied(NamedTuple):
    """A tensor with private copies that are changed.

    Attributes:
        name: in the plain backbone.
        homes: of the modules that read it, one a copy.
        inner: its name in these.
        shape: of it.
    """

    name: str
    homes: list[str]
    inner: str
    shape: tuple[int, ...]


def change_copies(model: MultiTaskModel, copies: CopyConfig, seed: int = 0) -> None:
    """Make the copies of split layers what `copies` says, in place; the model computes the same.

    - "low-rank": the weight of a layer is one for all its copies, and each adds an update of that
      rank. A weight for which that would be as many numbers as a copy, a bias, a norm and a
      parameter that no layer of its own owns keep their full copies.
    - "gates": the affine parameters of norms are multiplied by a sigmoid a channel, after
      TS-sigma-BN (arXiv 2512.20420). There each task has its own statistics and sigmoids, which
      stand in place of weight and bias and learn up to a hundred times as fast as the rest. Here
      they come on top of a private weight and bias, so that the network computes what it did, and
      have the learning rate of the norm. Other copies stay.

    Args:
        model: fresh, its copies equal: of a low-rank layer the first copy's weight becomes that of
            all.
        copies: what they are to be.
        seed: of the updates.
    """
    if copies.kind == "full":
        return
    network = model.backbone
    layout, plain = network.blueprint.layout, network.blueprint.template
    further: dict[str, str] = {}
    found = list(_changed(layout, network.blueprint.readers, plain, copies))
    for own in found:
        if copies.kind == "low-rank":
            _share(network, own, copies.rank, seed, further)
        else:
            _gate(network, own, further)
    network.add_aliases(further)
    if found:
        model.config["copies"] = copies.model_dump()


def _share(
    network: BranchedBackbone, own: _Copied, rank: int, seed: int, further: dict[str, str]
) -> None:
    """Give a weight's copies one weight and an update each."""
    first: nn.Parameter | None = None
    for place, home in enumerate(own.homes):
        module = network.get_submodule(home)
        drawn_by = artefact.digest([seed, "low-rank", own.name, place])[:12]
        generator = torch.Generator().manual_seed(int(drawn_by, 16))
        weight = getattr(module, own.inner)
        update = LowRank(weight.detach(), rank, generator)
        parametrize.register_parametrization(module, own.inner, update)
        kept = module.get_submodule(f"parametrizations.{own.inner}")
        path = f"{{}}.parametrizations.{own.inner}.original"
        if first is None:
            first = kept.original  # type: ignore[assignment]
        else:
            kept.register_parameter("original", first)
            further[path.format(home)] = path.format(own.homes[0])


def _gate(network: BranchedBackbone, own: _Copied, further: dict[str, str]) -> None:
    """Give every copy of a norm a gate, which its weight and its bias share."""
    for home in own.homes:
        module = network.get_submodule(home)
        gate = Gate(getattr(module, own.inner))
        names = [own.inner, *(["bias"] if find(module, "bias") is not None else [])]
        for name in names:
            parametrize.register_parametrization(module, name, gate)
        for name in names[1:]:
            path = f"{home}.parametrizations.{{}}.0.logit"
            further[path.format(name)] = path.format(own.inner)


def _changed(
    layout: Layout,
    read_by: Mapping[str, Sequence[tuple[str, str]]],
    plain: nn.Module,
    copies: CopyConfig,
) -> Iterator[_Copied]:
    """Yield the tensors of a network whose copies `copies` changes."""
    every = dict(plain.named_parameters())
    for name, read in read_by.items():
        if name not in every or not every[name].requires_grad or len(read) != 1:
            continue
        (target, _), shape, own = read[0], tuple(every[name].shape), blocks(layout.tensors[name])
        owner, _, inner = name.rpartition(".")
        module = plain.get_submodule(owner)
        if len(own) < 2 or any(next(c.parameters(), None) is not None for c in module.children()):
            continue  # shared by all, or owned by a composite module
        if target not in ("", owner) or (target and blocks(layout.modules[target]) != own):
            continue  # tied, or inside of what is called as a whole
        is_norm = "Norm" in type(module).__name__
        if copies.kind == "gates":
            wanted = is_norm and inner == "weight" and len(shape) == 1
        else:
            wanted = not is_norm and _is_smaller(shape, copies.rank)
        if wanted:
            own = sorted(own, key=lambda block: (-len(block), block))  # as trees are: see `branch`
            homes = [layout.home(name, block[0]).rpartition(".")[0] for block in own]
            yield _Copied(name, homes, inner, shape)


def _is_smaller(shape: tuple[int, ...], rank: int) -> bool:
    """Whether an update of that rank has fewer numbers than the weight."""
    return len(shape) > 1 and rank * (shape[0] + math.prod(shape[1:])) < math.prod(shape)


def surplus(analysis: Analysis, split: Split, copies: CopyConfig) -> int:
    """Parameters that the network of a split has more than with full copies; below 0: fewer."""
    if copies.kind == "full":
        return 0
    layout, plain = analysis.lay_out(split), analysis.trace.root
    read = readers(layout, analysis.trace.graphs, plain)
    found = 0
    for own in _changed(layout, read, plain, copies):
        n, size = len(own.homes), math.prod(own.shape)
        if copies.kind == "gates":
            found += n * size
        else:
            found += n * copies.rank * (own.shape[0] + size // own.shape[0]) - (n - 1) * size
    return found


def fold_copies(model: MultiTaskModel) -> None:
    """Make all that copies compute plain weights of full copies, in place."""
    if model.config.pop("copies", None) is None:
        return
    for module in [m for m in model.backbone.modules() if parametrize.is_parametrized(m)]:
        made = module.get_submodule("parametrizations")
        values = {name: getattr(module, name).detach().clone() for name, _ in made.named_children()}
        # Not torch's remove_parametrizations: it changes the class, which deep copies share.
        module.__class__ = parametrize.type_before_parametrizations(module)
        del module._modules["parametrizations"]
        for name, value in values.items():
            module.register_parameter(name, nn.Parameter(value))


def folded(model: MultiTaskModel) -> MultiTaskModel:
    """Return the model with full copies: a copy of it, or itself where it has none other."""
    if "copies" not in model.config:
        return model
    plain = copy.deepcopy(model)
    fold_copies(plain)
    return plain
