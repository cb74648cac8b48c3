"""Torch's global random generators, left as they were."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


def forked() -> AbstractContextManager[None]:
    """Put the generators back after a block, those of all GPUs too.

    Torch's `fork_rng` does so as well, but warns where a machine has several and none is named.
    """
    return torch.random.fork_rng(devices=range(torch.accelerator.device_count()))
