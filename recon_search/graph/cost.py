"""What a split costs, before anything is trained or even built; and the graph of layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import networkx as nx
from torch import fx, nn

from recon_search.graph.analysis import analyse
from recon_search.graph.example import Inputs, one_of
from recon_search.graph.layers import layer_names
from recon_search.graph.layout import Layout
from recon_search.graph.partition import Group
from recon_search.graph.split import Split
from recon_search.graph.trace import Trace, is_metadata, trace
from recon_search.graph.work import count_flops


@dataclass(frozen=True)
class Cost:
    """Size and work of a branched backbone, heads not included.

    Attributes:
        base_parameters: of the unsplit backbone.
        base_flops: of its forward pass on one input, as torch's FlopCounterMode counts them: two
            for each multiply-add of matrix products, convolutions and attention, none for the rest.
        parameters: for each group of tasks, those that exactly this group shares. The group of all
            tasks is the trunk.
        flops: likewise, of the forward pass on one input.
    """

    base_parameters: int
    base_flops: int
    parameters: Mapping[Group, int]
    flops: Mapping[Group, int]

    @property
    def total_parameters(self) -> int:
        """Parameters of trunk and branches."""
        return sum(self.parameters.values())

    @property
    def total_flops(self) -> int:
        """FLOPs of one input on the paths of all tasks."""
        return sum(self.flops.values())


def cost(backbone: nn.Module, split: Split, *, example: Any = None) -> Cost:
    """Count the parameters and FLOPs of `branch(backbone, split)` without building it.

    Each node of the backbone's evaluation graph is counted once and billed to every block of tasks
    that computes it.

    Args:
        backbone: left untouched.
        split: the plan.
        example: what the backbone is called with, as for `branch`; made from its configuration if
            None.

    Raises:
        SplitError: the split does not fit the backbone.
        BackboneError: the backbone's graph cannot be taken apart.
    """
    known = analyse(backbone, example)
    return cost_of(known.trace, known.lay_out(split), known.inputs)


def cost_of(traced: Trace, layout: Layout, inputs: Inputs) -> Cost:
    """Count the parameters and FLOPs of a network that is planned already (see `cost`)."""
    sizes = {name: parameter.numel() for name, parameter in traced.root.named_parameters()}
    parameters: Counter[Group] = Counter()
    for name, size in sizes.items():
        parameters.update(dict.fromkeys(layout.groups(name), size))
    work = count_flops(traced, one_of(inputs))
    flops: Counter[Group] = Counter()
    for node, count in work.items():
        flops.update(dict.fromkeys(layout.runs(node), count))
    return Cost(sum(sizes.values()), sum(work.values()), dict(parameters), dict(flops))


def layer_graph(backbone: nn.Module, *, example: Any = None) -> nx.DiGraph:
    """Return the graph of layers: an edge leads from a layer to those that read its output.

    `networkx.descendants` of the split layers are the layers that a branched network calls once per
    branch. Each node has the attribute `n_parameters`. Layers inside a module that torch.fx keeps
    whole stand side by side.

    Raises:
        BackboneError: the backbone cannot be traced.
    """
    traced = trace(backbone, example)
    layers = layer_names(traced)
    owner = {name: layer for layer, names in layers.items() for name in names}
    graph = nx.DiGraph()
    for layer, names in layers.items():
        size = sum(traced.root.get_parameter(name).numel() for name in names)
        graph.add_node(layer, n_parameters=size)
    feeds: dict[fx.Node, set[str]] = {}
    for node in traced.graphs[True].nodes:
        if node.op == "get_attr" or is_metadata(node):
            continue
        readers = [node, *(n for n in node.all_input_nodes if n.op == "get_attr")]
        own = {owner[name] for n in readers for name in traced.uses(n) if name in owner}
        before = set().union(*(feeds.get(n, set()) for n in node.all_input_nodes))
        graph.add_edges_from((first, then) for first in before for then in own if first != then)
        feeds[node] = own or before
    return graph
