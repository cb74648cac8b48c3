"""Sparse updates: a share of the backbone's weights is trained, the others never change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from recon_search.artefact import digest
from recon_search.graph.habits import plain_name
from recon_search.model.network import MultiTaskModel
from recon_search.recipe import TrainConfig


class SparseUpdates:
    """Keeps all but a share of a model's backbone as it is, for all tasks alike.

    Sparse training (arXiv 2411.18615, Definition 2) updates a part of the shared parameters, chosen
    once before training, and leaves the rest unchanged, so that there is less for tasks to conflict
    in. The paper's own choice (Section 3.4) is of every neuron the input weights of largest
    magnitude: in all about 30 % of a pretrained network, 60 % of one with random weights. Among the
    choices that it compares (Section 4.4), equally many weights at random come second, before the
    largest of the whole network. Here it is that random choice, an equal share of every parameter:
    what choosing has to beat, and the same after a resume, whose weights have moved. Heads are
    trained whole, as there, and norms' statistics move.

    Gradients are masked as they are computed, so methods and measured conflicts see the trained
    part alone; weight decay and momentum cannot move the rest either.

    Args:
        model: whose parameters get hooks until `close`.
        share: of each parameter's elements that is trained, on average.
        seed: of the mask. Copies of a layer have the mask of the layer.
    """

    def __init__(self, model: MultiTaskModel, share: float, seed: int) -> None:
        self._masks: list[tuple[nn.Parameter, Tensor]] = []
        self._hooks = []
        for path, parameter in model.backbone.named_parameters():
            if not parameter.requires_grad:
                continue
            drawn_by = digest([seed, "update", plain_name(path), list(parameter.shape)])[:12]
            generator = torch.Generator().manual_seed(int(drawn_by, 16))
            mask = (torch.rand(parameter.shape, generator=generator) < share).to(parameter.device)
            self._masks.append((parameter, mask))
            self._hooks.append(parameter.register_hook(mask.mul))  # type: ignore[no-untyped-call]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Put back what an optimiser's step in the block has moved without a gradient."""
        before = [parameter.detach().clone() for parameter, _ in self._masks]
        yield
        with torch.no_grad():
            for (parameter, mask), was in zip(self._masks, before, strict=True):
                parameter.copy_(torch.where(mask, parameter, was))

    def close(self) -> None:
        """Take the hooks away."""
        for hook in self._hooks:
            hook.remove()


def create_sparse(model: MultiTaskModel, config: TrainConfig, seed: int) -> SparseUpdates | None:
    """Make the sparse updates that a recipe asks for, if it does."""
    return None if config.update_share == 1 else SparseUpdates(model, config.update_share, seed)
