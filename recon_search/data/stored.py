"""Samples that are kept in memory: as tensors, or as decoded images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from recon_search.data.reader import Loaded, Reader
from recon_search.data.resident import Part
from recon_search.data.source import PartName


class Stored:
    """Samples of a part that is kept as tensors."""

    def __init__(self, part: Part) -> None:
        self._part = part

    def __len__(self) -> int:
        return len(self._part)

    def __getitem__(self, index: int) -> Loaded:
        lane = next(lane for lane in self._part.find_lanes() if index in lane.rows)
        place = index - lane.rows.start
        targets = {name: self._part.targets[name][place] for name in lane.tasks}
        return self._part.inputs[index], targets


class Decoded:
    """Samples of a part whose images are kept decoded, at their own size."""

    def __init__(self, reader: Reader, part: PartName) -> None:
        n = len(reader.data.parts[part])
        self._samples = [reader.open(part, index) for index in range(n)]

    @property
    def nbytes(self) -> int:
        """Of the images."""
        return sum(
            image.nbytes
            if isinstance(image, Tensor)
            else image.width * image.height * len(image.getbands())
            for image, _ in self._samples
        )

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[Any, Mapping[str, Any]]:
        return self._samples[index]
