"""A backbone followed once: its graphs, what they overwrite, its layers.

What is found holds for every module that differs in its weights alone, so one analysis serves all
networks that are built of one backbone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import fx, nn

from recon_search.graph.example import Inputs, example_input, one_of
from recon_search.graph.layers import LayerInfo, describe_traced, digest_of, layer_names
from recon_search.graph.layout import Layout, lay_out
from recon_search.graph.mutation import Effects, watch
from recon_search.graph.partition import from_groups
from recon_search.graph.split import Split
from recon_search.graph.trace import Trace, trace
from recon_search.graph.work import count_flops


@dataclass(frozen=True)
class Analysis:
    """What is known of a backbone, whatever its weights.

    Attributes:
        trace: its graphs.
        inputs: the positional arguments it was run with.
    """

    trace: Trace
    inputs: Inputs

    @cached_property
    def effects(self) -> Mapping[bool, Effects]:
        """What the graph of each mode overwrites."""
        graphs = self.trace.graphs
        return {training: watch(self.trace, training, self.inputs) for training in graphs}

    @cached_property
    def layers(self) -> dict[str, tuple[str, ...]]:
        """First names of the parameters of each splittable layer, in order of first use."""
        return layer_names(self.trace)

    @cached_property
    def infos(self) -> list[LayerInfo]:
        """Type, shape and parameter count of each splittable layer (see `describe`)."""
        return describe_traced(self.trace)

    @cached_property
    def digest(self) -> str:
        """Digest of the names and shapes of the layers (see `backbone_digest`)."""
        return digest_of(self.trace)

    @cached_property
    def flops(self) -> Mapping[fx.Node, int]:
        """FLOPs of each node of the evaluation graph, for one input."""
        return count_flops(self.trace, one_of(self.inputs))

    def flops_of(self, split: Split) -> float:
        """FLOPs of the network that a split makes, as a multiple of the unsplit one's.

        Raises:
            SplitError: the split does not fit the backbone.
        """
        computed = self.lay_out(split).computed
        total = sum(n * len(set(computed[node])) for node, n in self.flops.items())
        return total / max(sum(self.flops.values()), 1)

    def lay_out(self, split: Split) -> Layout:
        """Find out who shares what when a split is applied.

        Raises:
            SplitError: the split does not fit the backbone.
            BackboneError: the graphs do not compute what the backbone does.
        """
        split.check_trace(self.trace)
        partitions = {
            name: from_groups(groups, split.tasks)
            for layer, groups in split.layers.items()
            for name in self.layers[layer]
        }
        return lay_out(self.trace, self.effects, split.tasks, partitions)


def analyse(backbone: nn.Module, example: Any = None) -> Analysis:
    """Follow an unsplit backbone in both modes.

    Args:
        backbone: left untouched.
        example: what it is called with, as for `branch`; made from its configuration if None.

    Raises:
        BackboneError: the backbone's graph cannot be taken apart.
    """
    traced = trace(backbone, example)
    inputs = (example_input(traced.root),) if traced.example is None else traced.example
    return Analysis(traced, inputs)
