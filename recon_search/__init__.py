"""Find the layers in which tasks' gradients conflict, split them, retrain, and prove it.

Names are imported when first used, so that `recon-search --help` does not wait for torch; type
checkers see them all.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recon_search.conflict.gramian import gramians
    from recon_search.conflict.scores import ConflictScores
    from recon_search.conflict.sketch import Sketch
    from recon_search.data.task_data import TaskData
    from recon_search.errors import ReconSearchError
    from recon_search.graph.branch import branch
    from recon_search.graph.branched import BranchedBackbone
    from recon_search.graph.layers import layers
    from recon_search.graph.split import Split
    from recon_search.methods.surgeon import create_surgeon
    from recon_search.model.files import load
    from recon_search.model.network import MultiTaskModel
    from recon_search.runs.listener import Listener
    from recon_search.stages.api import compare, probe, run, search_splits
    from recon_search.stages.predict import predict
    from recon_search.tasks.binary import Binary
    from recon_search.tasks.classes import Classes
    from recon_search.tasks.depth import Depth
    from recon_search.tasks.edges import Edges
    from recon_search.tasks.labels import Labels
    from recon_search.tasks.normals import Normals
    from recon_search.tasks.segments import Segments
    from recon_search.tasks.task import Task
    from recon_search.tasks.values import Values

__version__ = "0.1.0"

_HOMES = {
    "Binary": "tasks.binary",
    "BranchedBackbone": "graph.branched",
    "Classes": "tasks.classes",
    "ConflictScores": "conflict.scores",
    "Depth": "tasks.depth",
    "Edges": "tasks.edges",
    "Labels": "tasks.labels",
    "Listener": "runs.listener",
    "MultiTaskModel": "model.network",
    "Normals": "tasks.normals",
    "ReconSearchError": "errors",
    "Segments": "tasks.segments",
    "Sketch": "conflict.sketch",
    "Split": "graph.split",
    "Task": "tasks.task",
    "TaskData": "data.task_data",
    "Values": "tasks.values",
    "branch": "graph.branch",
    "compare": "stages.api",
    "create_surgeon": "methods.surgeon",
    "gramians": "conflict.gramian",
    "layers": "graph.layers",
    "load": "model.files",
    "predict": "stages.predict",
    "probe": "stages.api",
    "run": "stages.api",
    "search_splits": "stages.api",
}
"""Where each public name lives."""

__all__ = [
    "Binary",
    "BranchedBackbone",
    "Classes",
    "ConflictScores",
    "Depth",
    "Edges",
    "Labels",
    "Listener",
    "MultiTaskModel",
    "Normals",
    "ReconSearchError",
    "Segments",
    "Sketch",
    "Split",
    "Task",
    "TaskData",
    "Values",
    "branch",
    "compare",
    "create_surgeon",
    "gramians",
    "layers",
    "load",
    "predict",
    "probe",
    "run",
    "search_splits",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'recon_search' has no attribute '{name}'")
    return getattr(importlib.import_module(f"recon_search.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
