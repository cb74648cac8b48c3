"""A feed seen in another way."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch

from recon_search.data.source import Feed, Inputs, PartName, Schema, Step


@dataclass(frozen=True)
class FeedView:
    """Shows a feed as it is; a subclass changes what it shows in another way.

    Attributes:
        feed: the whole.
    """

    feed: Feed

    @property
    def schema(self) -> Schema:
        """What it holds."""
        return self.feed.schema

    @property
    def inputs(self) -> Inputs:
        """How inputs are made ready."""
        return self.feed.inputs

    @property
    def device(self) -> torch.device:
        """Where batches are."""
        return self.feed.device

    def select(self, tasks: Collection[str]) -> Self:
        """The view of what some tasks see."""
        return replace(self, feed=self.feed.select(tasks))

    def lengths(self, part: PartName) -> tuple[int, ...]:
        """Number of inputs in a part, one where tasks share them."""
        return self.feed.lengths(part)

    def n_steps(self, part: PartName, size: int, *, shuffled: bool) -> int:
        """Number of steps that `steps` yields."""
        return self.feed.n_steps(part, size, shuffled=shuffled)

    def steps(
        self,
        part: PartName,
        size: int,
        order: tuple[int, int] | None = None,
        *,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[Step]:
        """Cut a part into steps (see `Feed.steps`)."""
        return self.feed.steps(part, size, order, share=share)

    def close(self) -> None:
        """End what runs between steps."""
        self.feed.close()
