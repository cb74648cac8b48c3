"""Who needs what: of a pyramid, or a vector and a pyramid, not every task needs every node."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from torch import fx

from recon_search.graph.calls import Reads
from recon_search.graph.exported import expect_like
from recon_search.graph.mutation import Effects
from recon_search.graph.trace import Trace


def find_needed(
    trace: Trace, effects: Mapping[bool, Effects], reads: Sequence[Reads]
) -> dict[fx.Node, frozenset[int]]:
    """Follow what each task reads back to all that it is made of.

    What is overwritten needs all that overwrites it, and what a module updates belongs to the rest
    of the module. timm runs more of some models than their maps need.

    Args:
        trace: the graphs of both modes.
        effects: what each of them overwrites.
        reads: of each task.

    Returns:
        the tasks, by position, that need a node; nothing where the forward pass was followed, of
        which everybody needs everything.
    """
    if trace.call.kind == "forward":
        return {}
    found: dict[fx.Node, set[int]] = {}
    for training, graph in trace.graphs.items():
        found |= _follow(trace, graph, effects[training], reads)
    return {node: frozenset(tasks) for node, tasks in found.items()}


def find_users(
    trace: Trace, needed: Mapping[fx.Node, frozenset[int]], everyone: Collection[int]
) -> dict[str, frozenset[int]]:
    """Return for each tensor that a graph reads, by first name, the tasks that need it."""
    found: dict[str, frozenset[int]] = {}
    for graph in trace.graphs.values():
        for node in graph.nodes:
            for name in trace.uses(node):
                tasks = needed.get(node, frozenset(everyone))
                found[name] = found.get(name, frozenset()) | tasks
    return found


def _follow(
    trace: Trace, graph: fx.Graph, effects: Effects, reads: Sequence[Reads]
) -> dict[fx.Node, set[int]]:
    everyone = {*range(len(reads))}
    own: dict[fx.Node, set[int]] = {node: set() for node in graph.nodes}
    (output,) = graph.find_nodes(op="output")
    own[output] |= everyone
    vector, maps = output.args[0] if trace.call.kind == "both" else (None, output.args[0])
    if vector is not None:
        own[vector] |= {i for i in everyone if reads[i] == "vector"}
    for node in maps:
        own[node] |= {i for i in everyone if reads[i] == "pyramid"}
    of_module: dict[str, list[fx.Node]] = defaultdict(list)
    for node in graph.nodes:
        if node.target is expect_like:
            own[node] |= everyone
        for name in trace.uses(node):
            of_module[name.rpartition(".")[0]].append(node)
    before = -1
    while before != (size := sum(map(len, own.values()))):
        before = size
        for node in reversed(graph.nodes):
            for origin in effects.writes[node]:
                own[node] |= own[origin]
            if node.op != "call_module":
                for name in effects.updates[node]:
                    for other in of_module[name.rpartition(".")[0]]:
                        own[node] |= own[other]
            if node is not output:
                for source in node.all_input_nodes:
                    own[source] |= own[node]
    return own
