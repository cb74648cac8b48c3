"""Images and targets of a `TaskData`, made ready for training."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from recon_search.data.source import Feed, Schema
from recon_search.data.task_data import TaskData
from recon_search.recipe import DataConfig


@dataclass(frozen=True)
class Images:
    """A `TaskData` as a source.

    Attributes:
        data: tasks and samples.
        config: how images are made ready and loaded.
    """

    data: TaskData
    config: DataConfig

    @property
    def schema(self) -> Schema:
        """What it holds."""
        raise NotImplementedError

    def open(self, device: torch.device) -> Feed:
        """Make it ready to be read in steps on a device."""
        raise NotImplementedError
