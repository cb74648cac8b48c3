"""Tasks with data of their own: a data set for each task, seen as one."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recon_search.data.order import Lane

if TYPE_CHECKING:
    from recon_search.data.samples import Picture, Samples, Target


class Apart:
    """The data sets of several tasks, one after the other; a sample has a target of its task alone.

    Args:
        sets: by task, in order. `[i]` is a pair of an image and a target, or of an image and
            targets by name, of which that of the task counts.

    Attributes:
        lanes: where each task's samples are.
    """

    def __init__(self, sets: Mapping[str, Samples]) -> None:
        self.sets = dict(sets)
        self._names = tuple(self.sets)
        self._starts = [0]
        for own in self.sets.values():
            self._starts.append(self._starts[-1] + len(own))
        spans = zip(self._names, self._starts, self._starts[1:], strict=False)
        self.lanes = tuple(Lane((name,), range(a, b), name) for name, a, b in spans)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> tuple[Picture, Mapping[str, Target]]:
        name, place = self.find(index)
        found: Any = self.sets[name][place]
        if isinstance(found, tuple | list) and len(found) == 2:  # else whoever reads it refuses it
            found = found[0], _own(name, found[1])
        return found  # type: ignore[no-any-return]

    def find(self, index: int) -> tuple[str, int]:
        """Return the task of a sample, and its place in the task's data set."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect.bisect_right(self._starts, index) - 1
        return self._names[number], index - self._starts[number]


class ApartAndKnown(Apart):
    """Data sets that all tell targets without images."""

    def targets(self, index: int) -> Mapping[str, Target]:
        """Return the target of a sample without its image."""
        name, place = self.find(index)
        own: Any = self.sets[name]
        return _own(name, own.targets(place))


def join(sets: Mapping[str, Samples], names: Sequence[str]) -> Any:
    """See data sets as one part, in the order of the tasks; those of no task come last.

    What is no data set is left as it is, to be refused.
    """
    if not all(hasattr(own, "__len__") and hasattr(own, "__getitem__") for own in sets.values()):
        return sets
    known = [name for name in names if name in sets]
    ordered = {name: sets[name] for name in [*known, *(s for s in sets if s not in known)]}
    are_known = all(callable(getattr(own, "targets", None)) for own in ordered.values())
    return (ApartAndKnown if are_known else Apart)(ordered)


def _own(name: str, target: Any) -> dict[str, Any]:
    return {name: target.get(name) if isinstance(target, Mapping) else target}
