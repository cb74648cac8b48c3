"""Graphs as plain values, for pickling.

torch.fx's own pickles recurse along a graph, which deep networks are too long for, and do not know
the operators of torch.export.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_aggregate, map_arg

from recon_search.graph.layout import Layout
from recon_search.graph.partition import Partition


@dataclass(frozen=True)
class _Number:
    """A node, by its place in the graph."""

    place: int


@dataclass(frozen=True)
class _Operator:
    """An operator of torch, by its name below `torch.ops`."""

    name: str


@dataclass(frozen=True)
class _Node:
    op: str
    name: str
    target: Any
    args: Any
    kwargs: Any
    is_wrapped: bool
    computed: Partition | None
    held: Partition | None
    needed: frozenset[int] | None


Rows = Mapping[bool, list[_Node]]
"""The nodes of the graph of each mode, with their partitions."""


def flatten(graphs: Mapping[bool, fx.Graph], layout: Layout) -> tuple[Rows, Layout]:
    """Return graphs as lists of plain values, and their layout without nodes."""
    rows = {
        training: [*map(functools.partial(_row, _places(graph), layout), graph.nodes)]
        for training, graph in graphs.items()
    }
    return rows, dataclasses.replace(layout, computed={}, held={}, needed={})


def rebuild(rows: Rows, layout: Layout) -> tuple[dict[bool, fx.Graph], Layout]:
    """Return what `flatten` was given."""
    graphs: dict[bool, fx.Graph] = {}
    computed: dict[fx.Node, Partition] = {}
    held: dict[fx.Node, Partition] = {}
    needed: dict[fx.Node, frozenset[int]] = {}
    for training, own in rows.items():
        graph = graphs[training] = fx.Graph()
        nodes: list[fx.Node] = []

        def node(value: Any, nodes: list[fx.Node] = nodes) -> Any:
            return nodes[value.place] if isinstance(value, _Number) else value

        for row in own:
            args, kwargs = map_aggregate(row.args, node), map_aggregate(row.kwargs, node)
            target = _operator(row.target) if isinstance(row.target, _Operator) else row.target
            new = graph.create_node(row.op, target, args, kwargs, row.name)
            if row.is_wrapped:
                new.meta["is_wrapped"] = True
            nodes.append(new)
            if row.computed is not None and row.held is not None:
                computed[new], held[new] = row.computed, row.held
            if row.needed is not None:
                needed[new] = row.needed
    return graphs, dataclasses.replace(layout, computed=computed, held=held, needed=needed)


def _places(graph: fx.Graph) -> dict[fx.Node, _Number]:
    return {node: _Number(place) for place, node in enumerate(graph.nodes)}


def _row(places: Mapping[fx.Node, _Number], layout: Layout, node: fx.Node) -> _Node:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        target = _Operator(str(target))  # type: ignore[assignment]
    args = map_arg(node.args, places.__getitem__)  # type: ignore[arg-type]
    kwargs = map_arg(node.kwargs, places.__getitem__)  # type: ignore[arg-type]
    is_wrapped = bool(node.meta.get("is_wrapped", False))
    partitions = layout.computed.get(node), layout.held.get(node), layout.needed.get(node)
    return _Node(node.op, node.name, target, args, kwargs, is_wrapped, *partitions)


def _operator(operator: _Operator) -> Callable[..., Any]:
    found: Any = torch.ops
    for name in operator.name.split("."):
        found = getattr(found, name)
    return found  # type: ignore[no-any-return]
