"""What a branched backbone was built from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from torch import fx, nn

from recon_search.graph.calls import FORWARD, Call
from recon_search.graph.changes import readers
from recon_search.graph.layout import Layout
from recon_search.graph.pickling import Rows, flatten, rebuild


@dataclass(frozen=True)
class Blueprint:
    """What a branched backbone was built from; never changes, so copies of the network share it.

    Attributes:
        layout: who shares what.
        graphs: the graph of the unsplit backbone, by `training`.
        layers: first names of the parameters of each splittable layer, in order of first use.
        keys: the backbone's state-dict keys, each with the tensor's first name.
        template: the backbone on the meta device.
        call: what of it was followed.
    """

    layout: Layout
    graphs: Mapping[bool, fx.Graph]
    layers: Mapping[str, tuple[str, ...]]
    keys: Mapping[str, str]
    template: nn.Module
    call: Call = FORWARD

    @cached_property
    def readers(self) -> Mapping[str, list[tuple[str, str]]]:
        """Where the graphs read each tensor (see `changes.readers`)."""
        return readers(self.layout, self.graphs, self.template)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Callable[..., Blueprint], tuple[Any, ...]]:
        flat = flatten(self.graphs, self.layout)
        return _rebuilt, (*flat, dict(self.layers), dict(self.keys), self.template, self.call)


def _rebuilt(rows: Rows, layout: Layout, *rest: Any) -> Blueprint:
    graphs, layout = rebuild(rows, layout)
    return Blueprint(layout, graphs, *rest)
