"""Whether a network fits into this machine's memory, asked before any of it is allocated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from recon_search.errors import RecipeError
from recon_search.memory import in_gigabytes, total_memory
from recon_search.model.backbone import feature_width
from recon_search.recipe import BackboneConfig

SMALL = 2**22
"""Numbers in an image below which its activations are not looked at."""

COPIES = 4
"""Of every parameter, at least, while it learns: itself, its gradient, what an optimiser keeps."""

ALIVE = 3
"""Tensors as large as the largest that a forward pass holds at once."""


def check_room(config: BackboneConfig, backbone: nn.Module, shape: Sequence[int]) -> None:
    """Refuse a backbone or images that are larger than memory.

    Args:
        config: of the backbone.
        backbone: on the meta device.
        shape: of one image.

    Raises:
        RecipeError: naming what is too large.
    """
    _check_parameters(f"`backbone` {config.name}", backbone.parameters())
    if math.prod(shape) < SMALL:
        return
    with _Largest() as found:
        feature_width(backbone, config, shape)
    if (needed := ALIVE * found.bytes) > total_memory():
        raise RecipeError(
            f"Two images of shape {tuple(shape)} must fit into memory "
            f"({in_gigabytes(total_memory())}), {config.name} needs {in_gigabytes(needed)} for "
            "them. Make images smaller."
        )


def _check_parameters(what: str, parameters: Iterable[Tensor]) -> None:
    n = sum(parameter.numel() for parameter in parameters)
    if (needed := 4 * COPIES * n) > total_memory():
        raise RecipeError(
            f"{what} must fit into memory ({in_gigabytes(total_memory())}), its {n:,} parameters "
            f"need {in_gigabytes(needed)} to learn. Make it smaller."
        )


class _Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Note the size of the largest tensor that is computed inside the block."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.bytes = max(self.bytes, leaf.untyped_storage().nbytes())
        return result
