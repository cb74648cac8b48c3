"""Data that is given from Python: it must have a fingerprint, and travel to other processes."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from recon_search.data.reader import fault
from recon_search.data.source import PARTS
from recon_search.data.task_data import TaskData
from recon_search.errors import DataError, in_one_line


def settle(data: TaskData, *, travels: bool) -> TaskData:
    """Check data that is given, and give it a fingerprint if it has none.

    Args:
        data: tasks and samples.
        travels: whether other processes are to train with it.

    Raises:
        DataError: it is no `TaskData`, or cannot be sent to other processes.
    """
    if not isinstance(data, TaskData):
        raise DataError(
            f"`data` must be a recon_search.TaskData, got {type(data).__name__}. Make one of tasks "
            "and parts."
        )
    data.check()
    if travels:
        try:
            pickle.Pickler(_Nowhere()).dump(data)
        except Exception as error:  # whatever their classes raise
            raise DataError(
                "Data must be picklable to be used in several processes, it is not "
                f"({in_one_line(error)}). Define its classes and functions in a module, pass "
                'workers=1, or name a factory in the recipe: data.name = "factory".'
            ) from None
    return data if data.fingerprint else replace(data, fingerprint=fingerprint(data))


def fingerprint(data: TaskData) -> str:
    """Return a digest of every sample, which reads all of them.

    Raises:
        DataError: a sample cannot be read; names it.
    """
    found = hashlib.sha256()
    for part in PARTS:
        samples = data.parts[part]
        found.update(f"{part} {len(samples)}".encode())
        for index in range(len(samples)):
            try:
                image, targets = samples[index]
                _add(found, image)
                for name in sorted(targets):
                    found.update(name.encode())
                    _add(found, targets[name])
            except Exception as error:
                raise fault(data, part, index, error) from None
    return found.hexdigest()[:16]


def _add(found: Any, value: Any) -> None:
    if isinstance(value, Image.Image):
        found.update(f"{value.mode} {value.size}".encode())
        found.update(value.tobytes())
        return
    if isinstance(value, Tensor):
        found.update(f"{value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return
    found.update(repr(value).encode())


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, chunk: object) -> None:
        """Forget it."""
