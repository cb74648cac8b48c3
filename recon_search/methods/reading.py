"""What rotated heads read, kept from the forward pass until it is differentiated."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recon_search.errors import TrainingError
from recon_search.methods.scaling import Scaling
from recon_search.model.rotation import RotatedHead, check_features


class Readings:
    """Keeps the features that each head read last.

    Forward passes without gradients are not looked at. Heads hold nothing but a weak reference:
    what was read goes with this object, and a copy of the heads is read by nobody unless this is
    copied along.

    Args:
        heads: by task; whoever read them before does so no more.
    """

    def __init__(self, heads: Mapping[str, RotatedHead]) -> None:
        self.heads = heads
        self._readers = {task: _Reader(task, self) for task in heads}
        for task, head in heads.items():
            head.reader = self._readers[task]
        self.clear()

    def take(
        self, tasks: Collection[str], features: Mapping[str, Tensor] | None
    ) -> dict[str, list[Tensor]]:
        """Return what the heads of some tasks may have read; forgets all that was kept.

        Args:
            tasks: those with a loss.
            features: taken in place of what was kept.

        Raises:
            TrainingError: features are missing or no tensor of the head's width.
        """
        kept = self.kept
        self.clear()
        if features is None:
            return {task: list(kept[task]) for task in tasks}
        for task in tasks:
            if task not in features:
                raise TrainingError(
                    f"`features` must hold what the head of every task with a loss read, got "
                    f"{list(features)} without '{task}'. Add it, or pass None."
                )
            check_features(features[task], len(self.heads[task].rotation))
        return {task: [features[task]] for task in tasks}

    def clear(self) -> None:
        """Forget all; of each task two are enough to find out that there was more than one."""
        self.kept: dict[str, deque[Tensor]] = {task: deque(maxlen=2) for task in self.heads}

    def stop(self) -> None:
        """Read no more."""
        for head in self.heads.values():
            head.reader = None
        self.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "kept"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.clear()
        for reader in self._readers.values():
            reader.serve(self)


class _Reader:
    """Tells of one head; a copy or pickle of it tells nobody."""

    def __init__(self, task: str, readings: Readings) -> None:
        self.task = task
        self.serve(readings)

    def serve(self, readings: Readings) -> None:
        """Tell this one from now on, as long as it lives."""
        self._served: Callable[[], Readings | None] = weakref.ref(readings)

    def __call__(self, features: Tensor) -> None:
        readings = self._served()
        if readings is not None and torch.is_grad_enabled():
            readings.kept[self.task].append(features)

    def __getstate__(self) -> dict[str, Any]:
        return {"task": self.task}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.task = state["task"]
        self._served = _nobody


def _nobody() -> None:
    """What the reader of a copied head serves."""


@dataclass(frozen=True)
class HeadGradient:
    """What a task's loss gives its head.

    Attributes:
        features: those that the head read, None if nothing is to be differentiated for them.
        of_features: their gradient, in single precision at least.
        of_parameters: gradients of the head's parameters that it reaches.
    """

    features: Tensor | None
    of_features: Tensor | None
    of_parameters: dict[nn.Parameter, Tensor]


def differentiate(
    task: str, loss: Tensor, head: nn.Module, read: Sequence[Tensor], scaling: Scaling
) -> HeadGradient:
    """Differentiate a loss for a head's parameters and for the features that it read.

    Args:
        task: for messages.
        loss: a scalar.
        head: whose parameters lie behind the features alone.
        read: candidates, of which the loss comes from one, or one that needs no gradient.
        scaling: of the loss.

    Raises:
        TrainingError: the loss comes from several or none of them.
    """
    features = list(dict.fromkeys(one for one in read if one.requires_grad))
    parameters = [p for p in head.parameters() if p.requires_grad]
    wanted = [*features, *parameters]
    found = torch.autograd.grad(scaling.up(loss), wanted, allow_unused=True) if wanted else ()
    scaled = {one: own for one, own in zip(wanted, found, strict=True) if own is not None}
    reached = dict(zip(scaled, scaling.down(list(scaled.values())), strict=True))
    used = [one for one in features if one in reached]
    if len(used) > 1 or (reached and not used and (features or not read)):
        raise TrainingError(
            f"The loss of task '{task}' must come from features that model.heads['{task}'] read "
            f"once since the last step, it comes from {len(used) or 'none'} of them. Call the head "
            "once, or pass `features`."
        )
    gradient = reached[used[0]] if used else None
    if gradient is not None and gradient.dtype in (torch.bfloat16, torch.float16):
        gradient = gradient.float()
    own = {p: reached[p] for p in parameters if p in reached}
    return HeadGradient(used[0] if used else None, gradient, own)
