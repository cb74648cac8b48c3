"""Find the layers in which tasks' gradients conflict, split them, retrain, and prove it.

Names are imported when first used, so that `recon-search --help` does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "BranchedBackbone": "recon_search.graph.branched",
    "ConflictScores": "recon_search.conflict.scores",
    "MultiTaskModel": "recon_search.model.network",
    "ReconSearchError": "recon_search.errors",
    "Split": "recon_search.graph.split",
    "branch": "recon_search.graph.branch",
    "create_surgeon": "recon_search.methods.surgeon",
    "gramians": "recon_search.conflict.gramian",
    "layers": "recon_search.graph.layers",
    "load": "recon_search.model.files",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'recon_search' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
