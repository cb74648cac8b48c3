"""What a split makes of a backbone, layer by layer: the facts behind its picture and its table."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn
from torch.utils import _pytree as pytree

from recon_search.graph.analysis import Analysis, analyse
from recon_search.graph.cost import Cost, cost_of
from recon_search.graph.example import one_of
from recon_search.graph.latency import Latency, latency
from recon_search.graph.layout import Layout
from recon_search.graph.naming import block, stage
from recon_search.graph.partition import Group
from recon_search.graph.split import Split
from recon_search.graph.trace import Trace


@dataclass(frozen=True)
class Row:
    """Neighbouring layers of one part of the backbone that the split treats alike.

    Attributes:
        label: what to call them in few characters.
        layers: their names, in order of first use.
        runs: the groups of tasks for which they are computed, each group once.
        copies: the groups of tasks that share one copy of the weights.
        n_parameters: of one copy.
    """

    label: str
    layers: tuple[str, ...]
    runs: tuple[Group, ...]
    copies: tuple[Group, ...]
    n_parameters: int


@dataclass(frozen=True)
class Anatomy:
    """A branched backbone described without building it.

    Attributes:
        title: name of the backbone.
        size: of one input, the first of several: (C, H, W) as a rule.
        tasks: their names, in order.
        n_split: split layers.
        layers: one row a layer, in order of first use.
        cost: parameters and FLOPs of every group of tasks.
        latency: estimated time of every group of tasks; None where it was not asked for.
    """

    title: str
    size: tuple[int, ...]
    tasks: tuple[str, ...]
    n_split: int
    layers: tuple[Row, ...]
    cost: Cost
    latency: Latency | None = None

    @property
    def groups(self) -> list[Group]:
        """All groups that have parameters or work of their own: large first, in task order."""
        found = {self.tasks, *self.cost.parameters, *self.cost.flops}
        return sorted(found, key=lambda group: (-len(group), [self.tasks.index(t) for t in group]))

    @property
    def reused_parameters(self) -> int:
        """Parameters that all tasks share and that are yet computed with once per branch."""
        return sum(r.n_parameters for r in self.layers if len(r.copies) == 1 < len(r.runs))

    def rows(self, at_most: int = 48) -> list[Row]:
        """Merge neighbouring layers that are treated alike.

        Those of one block are merged; where that leaves more rows than `at_most`, those of one
        stage, and then whatever stands side by side.
        """
        rows = _merge(self.layers, block)
        if len(rows) > at_most:
            rows = _merge(self.layers, stage)
        if len(rows) > at_most:
            rows = _merge(self.layers, lambda layer: "")
        return rows


def dissect(
    backbone: nn.Module | Analysis,
    split: Split,
    *,
    title: str = "",
    example: Any = None,
    timed: bool = False,
) -> Anatomy:
    """Find out what `branch(backbone, split)` computes how often, with whose weights, at what cost.

    Args:
        backbone: left untouched; or its analysis, if it was followed already.
        split: the plan.
        title: what to call the backbone; its class if empty.
        example: an input it accepts; made from its configuration if None.
        timed: measure operations for an estimate of the latency as well.

    Raises:
        SplitError: the split does not fit the backbone.
        BackboneError: the backbone's graph cannot be taken apart.
    """
    known = backbone if isinstance(backbone, Analysis) else analyse(backbone, example)
    traced, layout, inputs = known.trace, known.lay_out(split), known.inputs
    return Anatomy(
        title or type(traced.root).__name__,
        tuple(pytree.tree_leaves(inputs)[0].shape[1:]),
        split.tasks,
        len(split.layers),
        tuple(_layers(traced, layout, known.layers)),
        cost_of(traced, layout, inputs),
        latency(traced, layout, one_of(inputs)) if timed else None,
    )


def _layers(traced: Trace, layout: Layout, layers: Mapping[str, tuple[str, ...]]) -> list[Row]:
    """Read one row a layer off the graph of evaluation."""
    readers = _readers(traced)
    rows = []
    for layer, names in layers.items():
        nodes = [node for name in names for node in readers[name]]
        rows.append(
            Row(
                layer,
                (layer,),
                layout.runs(*nodes) if nodes else layout.groups(names[0]),
                layout.groups(names[0]),
                sum(traced.root.get_parameter(name).numel() for name in names),
            )
        )
    return rows


def _readers(traced: Trace) -> dict[str, set[fx.Node]]:
    """Return for each tensor the nodes that bring it together with the input.

    What is computed from weights alone, such as a standardised weight, is followed up.
    """
    from_input: set[fx.Node] = set()
    made_of: dict[fx.Node, set[str]] = {}
    readers: dict[str, set[fx.Node]] = {name: set() for name in traced.names.values()}
    for node in traced.graphs[False].nodes:
        names = set(traced.uses(node)).union(*(made_of.get(n, ()) for n in node.all_input_nodes))
        if node.op == "placeholder" or not from_input.isdisjoint(node.all_input_nodes):
            from_input.add(node)
            for name in names:
                readers[name].add(node)
        else:
            made_of[node] = names
    return readers


def _merge(layers: Sequence[Row], part: Callable[[str], str]) -> list[Row]:
    """Join neighbours of the same part that the split treats alike."""

    def key(row: Row) -> tuple[str, tuple[Group, ...], tuple[Group, ...]]:
        return part(row.layers[0]), row.runs, row.copies

    sizes = Counter(part(row.layers[0]) for row in layers)
    rows = []
    for (name, runs, copies), run in itertools.groupby(layers, key):
        members = list(run)
        names = tuple(name for row in members for name in row.layers)
        has_parts = any(other.startswith(f"{name}.") for other in sizes)
        label = _label(name, names, is_whole=len(names) == sizes[name] and not has_parts)
        rows.append(Row(label, names, runs, copies, sum(row.n_parameters for row in members)))
    return rows


def _label(part: str, layers: tuple[str, ...], *, is_whole: bool) -> str:
    """Name a whole part by itself, some of its layers by what they are, many by first and last."""
    if part and is_whole and len(layers) > 1:
        return f"{part} ({len(layers)} layers)"
    own = [name.removeprefix(f"{part}.") for name in layers]
    if len(layers) > 3:
        own = [f"{own[0]} to {own[-1]} ({len(layers)} layers)"]
    return (f"{part}." if len(layers) == 1 and part else f"{part} ").lstrip() + ", ".join(own)
