"""Gradient checkpointing of a rewritten network: activations computed twice, to keep fewer.

The graph is cut into parts of about equally many nodes, as many as the root of their number. Each
part's inputs are kept, and what else its backward pass needs is computed anew at that time
(`torch.utils.checkpoint`). A cut must not separate a value from a node that writes into it: the
part that writes would find it overwritten when it runs again. Running statistics, and all that a
forward pass updates, are what they were, and do not move the second time: a checkpointed network
learns what it learns otherwise, bit for bit.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.utils.checkpoint import checkpoint

from recon_search.graph.emit import AT, Forward, compile_forward
from recon_search.graph.habits import plain_name
from recon_search.graph.mutation import Effects


@dataclass(frozen=True)
class Cuts:
    """How a graph may be cut.

    Attributes:
        places: of the nodes of the unsplit graph after which it may be cut.
        updated: first names of the buffers that the graph writes into.
    """

    places: frozenset[int]
    updated: frozenset[str]


def find_cuts(graph: fx.Graph, effects: Effects) -> Cuts:
    """Look where an unsplit graph may be cut."""
    place = {node: number for number, node in enumerate(graph.nodes)}
    forbidden: set[int] = set()
    for node, written in effects.writes.items():
        for origin in written:
            if origin in place and origin.op != "get_attr":
                forbidden.update(range(place[origin], place[node]))
    updated = frozenset().union(*effects.updates.values())
    return Cuts(frozenset(place.values()) - forbidden, updated)


def compile_in_parts(graph: fx.Graph, cuts: Cuts, name: str) -> Forward:
    """Turn an emitted graph into a function as `compile_forward` does, its parts checkpointed."""
    nodes = [node for node in graph.nodes if node.op not in ("placeholder", "output", "get_attr")]
    given = [node for node in graph.nodes if node.op == "placeholder"]
    (output,) = graph.find_nodes(op="output")
    pieces = _cut(nodes, cuts.places)
    parts = []
    for number, piece in enumerate(pieces):
        later = {n for other in pieces[number + 1 :] for node in other for n in _reads(node)}
        later.update(_reads(output))
        parts.append(_part(piece, [node for node in piece if node in later], f"{name} {number}"))

    def forward(network: nn.Module, *inputs: Any) -> Any:
        values: dict[fx.Node, Any] = dict(zip(given, inputs, strict=True))
        for part in parts:
            found = checkpoint(
                part.forward,
                network,
                *(values[node] for node in part.takes),
                use_reentrant=False,
                context_fn=functools.partial(_contexts, network, part.holders, cuts.updated),
            )
            values.update(zip(part.gives, found, strict=True))
        for node in _reads(output):
            if node.op == "get_attr":
                values[node] = functools.reduce(getattr, str(node.target).split("."), network)
        return map_arg(output.args[0], values.__getitem__)

    return forward


@dataclass(frozen=True)
class _Part:
    """One part of a graph.

    Attributes:
        forward: takes the network and values, and returns values.
        takes: the nodes whose values it takes.
        gives: those whose values it returns.
        holders: paths of the modules that it calls or whose tensors it reads.
    """

    forward: Forward
    takes: Sequence[fx.Node]
    gives: Sequence[fx.Node]
    holders: Sequence[str]


def _cut(nodes: Sequence[fx.Node], cuts: frozenset[int]) -> list[Sequence[fx.Node]]:
    """Cut nodes into parts, near equal distances where the fewest values are alive."""
    last = {source: place for place, node in enumerate(nodes) for source in _reads(node)}
    alive, ends = 0, [0] * (len(nodes) + 1)
    crossing = []
    for place, node in enumerate(nodes):
        alive -= ends[place]
        if last.get(node, place) > place:
            alive += 1
            ends[last[node]] += 1
        crossing.append(alive)
    n_parts = max(1, round(math.sqrt(len(nodes))))
    size = len(nodes) / n_parts
    starts = [0]
    for number in range(1, n_parts):
        window = range(max(starts[-1], int((number - 0.5) * size)), int((number + 0.5) * size))
        possible = [place for place in window if _is_cut(nodes, place, cuts)]
        if possible:
            best = min(possible, key=lambda p: (crossing[p], abs(p + 1 - number * size)))
            starts.append(best + 1)
    return [nodes[a:b] for a, b in zip(starts, [*starts[1:], len(nodes)], strict=True) if a < b]


def _is_cut(nodes: Sequence[fx.Node], place: int, cuts: frozenset[int]) -> bool:
    """Whether a part may end with the node at a place: copies of one node stay together."""
    here = nodes[place].meta[AT]
    return here in cuts and place + 1 < len(nodes) and nodes[place + 1].meta[AT] != here


def _part(nodes: Sequence[fx.Node], gives: Sequence[fx.Node], name: str) -> _Part:
    new = fx.Graph()
    inside = set(nodes)
    reads = dict.fromkeys(source for node in nodes for source in _reads(node))
    takes = [node for node in reads if node not in inside and node.op != "get_attr"]
    copies = {node: new.placeholder(node.name) for node in takes}
    for node in reads:
        if node.op == "get_attr":
            copies[node] = new.node_copy(node)
    for node in nodes:
        copies[node] = new.node_copy(node, copies.__getitem__)
    new.output(tuple(copies[node] for node in gives))
    called = [str(node.target) for node in nodes if node.op == "call_module"]
    called += [str(n.target).rpartition(".")[0] for n in reads if n.op == "get_attr"]
    return _Part(compile_forward(new, name), takes, gives, list(dict.fromkeys(called)))


def _reads(node: fx.Node) -> list[fx.Node]:
    return list(node.all_input_nodes)


def _contexts(
    network: nn.Module, holders: Sequence[str], updated: frozenset[str]
) -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
    """What a part runs under, the first time and every other."""
    paths = {
        f"{holder}.{name}"
        for holder in holders
        for name, _ in network.get_submodule(holder).named_buffers(remove_duplicate=False)
    }
    own = [path for path in paths if plain_name(path) in updated]
    before = {path: network.get_buffer(path).clone() for path in sorted(own)}
    return contextlib.nullcontext(), _Again(network, before)


class _Again:
    """Gives modules back, for the block, what their buffers held before; entered once a task.

    Args:
        network: that is computed anew.
        before: values by path.
    """

    def __init__(self, network: nn.Module, before: Mapping[str, Tensor]) -> None:
        self.network = network
        self.before = before
        self._now: dict[str, Tensor] = {}

    def __enter__(self) -> None:
        self._now = {path: self.network.get_buffer(path) for path in self.before}
        copies = {now: self.before[path].clone() for path, now in self._now.items()}
        for path, now in self._now.items():
            self._set(path, copies[now])

    def __exit__(self, *reason: object) -> None:
        for path, now in self._now.items():
            self._set(path, now)

    def _set(self, path: str, buffer: Tensor) -> None:
        owner, _, name = path.rpartition(".")
        self.network.get_submodule(owner)._buffers[name] = buffer
