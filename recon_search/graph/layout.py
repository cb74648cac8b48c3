"""Which tasks share which copy, for every node, module and tensor of a network.

The whole rewrite follows from one rule, applied until nothing changes: *a node's partition of the
tasks is the coarsest common refinement of the partitions of everything it reads*. Three facts feed
it beside the split itself:

- a buffer that the forward pass updates (running statistics) is as private as the nodes that update
  it, for each branch feeds it a distribution of its own;
- values that share storage with one that is overwritten are as private as the node that overwrites
  it, so that no task sees another task's in-place operation;
- both modes of the network share modules and tensors, so both graphs take part.

Every step only refines, so the passes end; two or three are the rule.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import fx

from recon_search.graph.calls import Reads
from recon_search.graph.mutation import Effects
from recon_search.graph.names import encode
from recon_search.graph.partition import (
    Group,
    Partition,
    blocks,
    merged,
    refine,
    to_groups,
    whole,
)
from recon_search.graph.trace import Trace


@dataclass(frozen=True)
class Layout:
    """The partitions of everything.

    Attributes:
        tasks: their names, in order.
        tensors: partition of each parameter and buffer, by first name.
        modules: partition of each leaf module that a graph calls: that of the tensors it holds.
        computed: partition of each node by what it reads: as often as it must be computed.
        held: partition of each node's value; finer than `computed` where a fresh copy is needed
            because a later node overwrites it for some tasks only. Values that are more than one
            tensor, which may share storage, are computed anew instead.
        reads: what each task takes of an output that is a vector and a pyramid; empty where all
            take the whole output.
        needed: the tasks, by position, that need a node for what they read; all where it is not
            listed.
    """

    tasks: tuple[str, ...]
    tensors: Mapping[str, Partition]
    modules: Mapping[str, Partition]
    computed: Mapping[fx.Node, Partition]
    held: Mapping[fx.Node, Partition]
    reads: tuple[Reads, ...] = ()
    needed: Mapping[fx.Node, frozenset[int]] = field(default_factory=dict)

    def members(self, node: fx.Node, wanted: Iterable[int]) -> list[int]:
        """Return those of some tasks, by position, that need a node."""
        needed = self.needed.get(node)
        return [i for i in wanted if needed is None or i in needed]

    def runs(self, *nodes: fx.Node) -> tuple[Group, ...]:
        """Return the groups of tasks for which nodes are computed, each group once."""
        partition = refine(whole(len(self.tasks)), *(self.computed[node] for node in nodes))
        members = {i for node in nodes for i in self.members(node, range(len(self.tasks)))}
        return tuple(
            tuple(self.tasks[i] for i in block) for block in blocks(partition, sorted(members))
        )

    def home(self, target: str, position: int) -> str:
        """Return where the rewritten network keeps a module or tensor of the task at `position`."""
        partition = self.modules.get(target) or self.tensors[target]
        label = partition[position]
        group = tuple(i for i, other in enumerate(partition) if other == label)
        return f"{self.tree(group)}.{target}"

    def tree(self, block: tuple[int, ...]) -> str:
        """Name the subtree of the tensors that exactly these tasks share."""
        if len(block) == len(self.tasks):
            return "shared"
        return "branches." + "+".join(encode(self.tasks[i]) for i in block)

    def homes(self, target: str) -> list[str]:
        """List the copies of a module or tensor, in task order."""
        partition = self.modules.get(target) or self.tensors[target]
        return [self.home(target, block[0]) for block in blocks(partition)]

    def groups(self, tensor: str) -> tuple[tuple[str, ...], ...]:
        """Return the groups of tasks that share a tensor."""
        return to_groups(self.tensors[tensor], self.tasks)


def lay_out(
    trace: Trace,
    effects: Mapping[bool, Effects],
    tasks: tuple[str, ...],
    split: Mapping[str, Partition],
    reads: Sequence[Reads] = (),
) -> Layout:
    """Spread the partitions of the split tensors over the network.

    Tasks that do not use a tensor for what they read share it with the first task that does.

    Args:
        trace: the graphs of both modes.
        effects: what each of them overwrites.
        tasks: in order.
        split: partition of each split tensor, by first name; all others start shared by all tasks.
        reads: what each task takes of an output that is a vector and a pyramid.

    Returns:
        the coarsest partitions that satisfy the rule above.
    """
    everyone = whole(len(tasks))
    needed = _needed(trace, effects, reads)
    users = _users(trace, needed, range(len(tasks)))
    tensors = {
        name: merged(split[name], users.get(name, frozenset())) if name in split else everyone
        for name in trace.names.values()
    }
    overwritten: dict[fx.Node, Partition] = {}
    computed: dict[fx.Node, Partition] = {}
    held: dict[fx.Node, Partition] = {}
    before: object = None
    while before != (tensors, overwritten):
        before = (dict(tensors), dict(overwritten))
        for training, graph in trace.graphs.items():
            found = effects[training]
            for node in graph.nodes:
                sources = [held[source] for source in node.all_input_nodes]
                sources += [tensors[name] for name in trace.uses(node)]
                aliases = [overwritten.get(origin, everyone) for origin in found.holds[node]]
                kept = () if node in found.plain else aliases
                partition = refine(everyone, *sources, *kept)
                partition = merged(partition, needed.get(node, partition))
                computed[node] = partition
                for name in found.updates[node]:
                    tensors[name] = refine(tensors[name], partition)
                for origin in found.writes[node]:
                    overwritten[origin] = refine(overwritten.get(origin, everyone), partition)
                held[node] = refine(partition, *aliases)
    modules = {
        str(node.target): refine(everyone, *(tensors[name] for name in trace.uses(node)))
        for graph in trace.graphs.values()
        for node in graph.find_nodes(op="call_module")
    }
    return Layout(tasks, tensors, modules, computed, held, tuple(reads), needed)


def _needed(
    trace: Trace, effects: Mapping[bool, Effects], reads: Sequence[Reads]
) -> dict[fx.Node, frozenset[int]]:
    """Follow what each task reads back to all that it is made of.

    What is overwritten needs all that overwrites it.
    """
    if not reads:
        return {}
    found: dict[fx.Node, set[int]] = {}
    for training, graph in trace.graphs.items():
        own: dict[fx.Node, set[int]] = {node: set() for node in graph.nodes}
        (output,) = graph.find_nodes(op="output")
        own[output] = {*range(len(reads))}
        vector, maps = output.args[0]
        for node in (vector, *maps):
            kind = "vector" if node is vector else "pyramid"
            own[node].update(i for i, each in enumerate(reads) if each == kind)
        before = -1
        while before != (size := sum(map(len, own.values()))):
            before = size
            for node in reversed(graph.nodes):
                for origin in effects[training].writes[node]:
                    own[node] |= own[origin]
                if node is not output:
                    for source in node.all_input_nodes:
                        own[source] |= own[node]
        found |= own
    return {node: frozenset(tasks) for node, tasks in found.items()}


def _users(
    trace: Trace, needed: Mapping[fx.Node, frozenset[int]], everyone: Collection[int]
) -> dict[str, frozenset[int]]:
    """Return for each tensor that a graph reads the tasks that need it."""
    found: dict[str, frozenset[int]] = {}
    for graph in trace.graphs.values():
        for node in graph.nodes:
            for name in trace.uses(node):
                tasks = needed.get(node, frozenset(everyone))
                found[name] = found.get(name, frozenset()) | tasks
    return found
