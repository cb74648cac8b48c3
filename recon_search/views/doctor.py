"""What this environment has: for bug reports, and before a long run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from typing import Any

import torch

import recon_search
from recon_search.disk import in_one_line
from recon_search.stages.checkup import OPTIONAL, Finding

PACKAGES = ("torch", "timm", "torchjd", "torchmetrics", "networkx", "safetensors", "pydantic")


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


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    """What a check-up has found, a line each, with what mends it; and how it came out."""
    lines = []
    width = max((len(in_one_line(each.name)) for each in findings), default=0)
    for each in findings:
        mark = {"ok": "ok", "note": "note", "fault": "FAULT"}[each.state]
        mend = f"  ->  {each.mend}" if each.mend else ""
        lines.append(f"{mark:<6} {in_one_line(each.name):<{width}}  {each.found}{mend}")
    n_faults = sum(each.state == "fault" for each in findings)
    n_notes = sum(each.state == "note" for each in findings)
    verdict = "Nothing speaks against training here."
    if n_faults:
        verdict = f"{n_faults} {'fault' if n_faults == 1 else 'faults'}: mend these first."
    elif n_notes:
        verdict += " Notes are for who needs what they name."
    return [*lines, verdict]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
