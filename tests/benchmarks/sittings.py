"""Sittings: what each call of a long piece of work has done, where, and how long the rest takes."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from recon_search import artefact
from recon_search.runs.listener import Listener
from recon_search.runs.result import HISTORY
from recon_search.training.stopping import Record
from recon_search.views.lines import duration


@dataclass
class Sitting:
    """One call: where, and what came of it.

    Attributes:
        begun: when, UTC.
        card: the GPU, or the CPU.
        driver: of the GPU.
        workers: trainings at once.
        seconds: that it lasted, up to the last that was heard of it.
        epochs: trained in it.
        finished: trainings that it ended.
        failed: by name of a training that came to an error, what that was. The others went on.
    """

    begun: str
    card: str
    driver: str
    workers: int
    seconds: float = 0.0
    epochs: int = 0
    finished: int = 0
    failed: dict[str, str] = field(default_factory=dict)


@dataclass
class Log(Listener):
    """Keeps the sittings in a file, up to the last epoch of the present one."""

    path: Path
    sittings: list[Sitting] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def open(self, sitting: Sitting) -> None:
        """Begin one."""
        self.sittings = [*read_sittings(self.path), sitting]
        self.save()

    def save(self) -> None:
        """Write the file, atomically."""
        self.sittings[-1].seconds = round(time.monotonic() - self.started, 1)
        artefact.write_json(self.path, {"sittings": [asdict(each) for each in self.sittings]})

    def epoch(self, name: str, record: Record) -> None:
        """Count an epoch, and the training with it if it is the last."""
        self.sittings[-1].epochs += 1
        self.save()

    def finish(self, name: str, seconds: float) -> None:
        """Note the time."""
        self.save()


def describe_rest(left: int, seconds: float, sittings: Sequence[Sitting]) -> str:
    """Say how long it may take.

    Args:
        left: epochs.
        seconds: that they take one after another by steps that were timed; 0 if none were.
        sittings: so far.
    """
    if not left:
        return "Nothing is left to train."
    said = [f"{left} epochs are left."]
    if seconds:
        said.append(f"By the steps timed they take {duration(seconds)} one after another.")
    epochs, spent = (sum(getattr(s, name) for s in sittings) for name in ("epochs", "seconds"))
    if epochs:
        rest = left * spent / epochs
        said.append(
            f"{len(sittings)} sittings trained {epochs} epochs in {duration(spent)}: at that rate "
            f"{duration(rest)}."
        )
    return " ".join([*said, "These are estimates: rows differ in what an epoch of theirs takes."])


def read_sittings(path: Path) -> list[Sitting]:
    """The sittings so far."""
    if not path.is_file():
        return []
    return [Sitting(**each) for each in artefact.read_object(path, "log")["sittings"]]


def epochs_done(folder: Path) -> int:
    """Epochs that a training has trained."""
    with contextlib.suppress(OSError):
        return (folder / HISTORY).read_bytes().count(b"\n")
    return 0


def device_names(device: torch.device) -> tuple[str, str]:
    """Name a GPU and its driver; of a CPU the latter is empty."""
    if device.type != "cuda":
        return "CPU", ""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = ""
    if shutil.which(query[0]):
        found = subprocess.run(query, capture_output=True, text=True, check=False)
        driver = found.stdout.partition("\n")[0].strip()
    return torch.cuda.get_device_name(device), f"{driver}, CUDA {torch.version.cuda}"
