"""Whether this environment can do the work: what was found, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from packaging.requirements import InvalidRequirement, Requirement

from recon_search import artefact
from recon_search.errors import ReconSearchError, in_one_line
from recon_search.runs.lock import held

OPTIONAL = {
    "onnx": "recon-search[onnx]",
    "onnxscript": "recon-search[onnx]",
    "onnxruntime": "recon-search[onnx]",
    "pyarrow": "recon-search[parquet]",
    "psycopg": "recon-search[postgres]",
    "tensorboard": "recon-search[tensorboard]",
    "trackio": "recon-search[trackio]",
    "wandb": "recon-search[wandb]",
    "cvxpy": "torchjd[cagrad,nash_mtl]",
    "qpsolvers": "torchjd[quadprog_projector]",
}
"""Packages that some formats and methods need, and what to install for them."""

State = Literal["ok", "note", "fault"]

LEAST_MEMORY, LEAST_DISK = 2 * 10**9, 10**9
"""Bytes below which a run of a small network may fail."""

NO_DISK = 5 * 10**7
"""Bytes below which not even one training fits."""

PACKAGE = "recon-search"


@dataclass(frozen=True)
class Finding:
    """What one check has found.

    Attributes:
        name: what was looked at.
        state: `fault` where nothing can be trained as it is, `note` where something is missing
            that not all need.
        found: in words.
        mend: a command, or what to do; "" where nothing is to be done.
    """

    name: str
    state: State
    found: str
    mend: str = ""


def check_up(folder: Path, data_roots: Sequence[Path] = ()) -> list[Finding]:
    """Look at packages, devices, memory, disk and folders; nothing is left behind.

    Args:
        folder: where runs are to be written; it need not exist.
        data_roots: folders with data.
    """
    place = _existing(folder)
    return [
        *_packages(),
        _arithmetic(torch.device("cpu")),
        *_cuda(),
        _memory(),
        _disk(place),
        _writing(place),
        *(_data_root(root) for root in data_roots),
        _weights(),
        *_optional(),
    ]


def _packages() -> Iterator[Finding]:
    """What must be installed, in which versions, by this package's own metadata."""
    try:
        lines = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding(
            "installation", "note", "run from source, versions are not checked", "pip install -e ."
        )
        return
    n_met = 0
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        wanted = f"{requirement.name}{requirement.specifier}"
        version = _version(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            found = "missing" if version is None else f"{version}, which is not {wanted}"
            yield Finding(requirement.name, "fault", found, f"pip install '{wanted}'")
        else:
            n_met += 1
    yield Finding("packages", "ok", f"{n_met} required ones, in versions that fit")


def _arithmetic(device: torch.device) -> Finding:
    """Whether a small network can be differentiated on a device."""
    try:
        image = torch.ones(1, 1, 8, 8, device=device)
        weight = torch.full((2, 1, 3, 3), 0.5, device=device, requires_grad=True)
        torch.nn.functional.conv2d(image, weight).sum().backward()  # type: ignore[no-untyped-call]
        assert weight.grad is not None
        total = float(weight.grad.sum())
        if total != 2 * 9 * 36:
            raise ArithmeticError(f"a sum of gradients must be 648, it is {total}")
    except Exception as error:
        mend = "pip install --force-reinstall torch torchvision"
        if device.type == "cuda":
            mend = "recon-search ... --device cpu, or install a torch that fits the driver"
        return Finding(f"torch on {device}", "fault", in_one_line(error), mend)
    return Finding(f"torch on {device}", "ok", f"{torch.__version__}, differentiates")


def _cuda() -> Iterator[Finding]:
    if not torch.cuda.is_available():
        has_card = shutil.which("nvidia-smi") is not None or Path("/dev/nvidia0").exists()
        if not has_card:
            yield Finding("cuda", "ok", "no device; training on the CPU")
        elif torch.version.cuda is None:
            found = f"this machine has a card, torch {torch.__version__} is built without CUDA"
            yield Finding("cuda", "note", found, "install a torch with CUDA, see pytorch.org")
        else:
            found = f"this machine has a card, torch with CUDA {torch.version.cuda} cannot use it"
            yield Finding("cuda", "note", found, "nvidia-smi  # is the driver new enough?")
        return
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        works = _arithmetic(device)
        if works.state != "ok":
            yield works
            continue
        free, total = torch.cuda.mem_get_info(device)
        found = f"{torch.cuda.get_device_name(device)}, {_size(free)} of {_size(total)} free"
        if free < LEAST_MEMORY:
            yield Finding(f"cuda {index}", "note", found, "nvidia-smi  # shows who uses it")
        else:
            yield Finding(f"cuda {index}", "ok", found)


def _memory() -> Finding:
    free = _free_memory()
    if free is None:
        return Finding("memory", "ok", "not known on this system")
    found = f"{_size(free)} free, {os.cpu_count()} cores"
    if free < LEAST_MEMORY:
        return Finding("memory", "note", found, "recon-search run ... --workers 1")
    return Finding("memory", "ok", found)


def _free_memory() -> int | None:
    """Bytes that may still be used: of the machine, or of this process's group if those are fewer.

    Only Linux tells.
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        values = dict(line.split(":", 1) for line in lines if ":" in line)
        free = 1024 * int(values["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        return max(0, min(free, limit - used))
    except (OSError, ValueError):  # no limit
        return free


def _disk(place: Path) -> Finding:
    name = f"disk of {place}"
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Finding(name, "fault", in_one_line(error), "choose another folder with --out")
    state: State = "fault" if free < NO_DISK else "note" if free < LEAST_DISK else "ok"
    mend = "" if state == "ok" else "free some, or choose another folder with --out"
    return Finding(name, state, f"{_size(free)} free", mend)


def _writing(place: Path) -> Finding:
    """Whether files can be written, renamed and locked, as a run does."""
    name = f"writing in {place}"
    try:
        with artefact.folder_beside(place / "doctor") as folder, held(folder, "doctor"):
            artefact.write_text(folder / "file", "text")
    except (ReconSearchError, OSError) as error:
        found = " ".join(str(error).split())
        return Finding(name, "fault", found, f"chmod u+rwx {place}, or pass --out FOLDER")
    return Finding(name, "ok", "files are written, renamed and locked")


def _data_root(root: Path) -> Finding:
    name = f"data root {root}"
    try:
        n = sum(1 for _ in os.scandir(root))
    except OSError as error:
        return Finding(name, "fault", str(error.strerror), "check the path, or mount it")
    if n == 0:
        return Finding(name, "fault", "empty", "recon-search data RECIPE --data-root FOLDER")
    return Finding(name, "ok", f"{n} files and folders")


def _weights() -> Finding:
    """Where timm keeps weights that it has loaded: read-only is fine once they are there."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    place = _existing(folder)
    if not os.access(place, os.W_OK):
        mend = "export HF_HUB_CACHE=FOLDER"
        return Finding("pretrained weights", "note", f"{place} cannot be written", mend)
    known = len(list(folder.glob("models--*"))) if folder.is_dir() else 0
    return Finding("pretrained weights", "ok", f"{known} in {folder}")


def _optional() -> Iterator[Finding]:
    for name, what in OPTIONAL.items():
        version = _version(name)
        if version is None:
            yield Finding(name, "note", "missing", f"pip install '{what}'")
        else:
            yield Finding(name, "ok", version)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above that is there."""
    path = folder.absolute()
    return next(each for each in (path, *path.parents) if each.is_dir())


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
