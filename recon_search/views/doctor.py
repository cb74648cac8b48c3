"""What this environment has: for bug reports, and before a long run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

import torch

import recon_search

PACKAGES = ("torch", "timm", "torchjd", "torchmetrics", "networkx", "safetensors", "pydantic")
OPTIONAL = {
    "onnx": "recon-search[onnx]",
    "onnxscript": "recon-search[onnx]",
    "onnxruntime": "recon-search[onnx]",
    "pyarrow": "recon-search[parquet]",
    "cvxpy": "torchjd[cagrad,nash_mtl]",
    "qpsolvers": "torchjd[quadprog_projector]",
}
"""Packages that some formats and methods need, and what to install for them."""


def examine() -> dict[str, Any]:
    """Versions, devices and optional packages; an optional package's value is None where absent."""
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "recon-search": recon_search.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "cuda devices": devices,
        "packages": {name: _version(name) for name in PACKAGES},
        "optional packages": {name: _version(name) for name in OPTIONAL},
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
