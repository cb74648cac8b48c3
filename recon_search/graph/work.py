"""How much each node of a graph works."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from recon_search.chance import forked
from recon_search.graph.example import Inputs
from recon_search.graph.trace import Trace


def count_flops(traced: Trace, inputs: Inputs) -> dict[fx.Node, int]:
    """Count the FLOPs of every node of the evaluation graph, as torch's FlopCounterMode does."""
    counter = _FlopInterpreter(traced.root, traced.graphs[False])
    flags = {part: part.training for part in traced.root.modules()}
    traced.root.eval()
    with torch.no_grad(), forked(), counter.mode:
        counter.run(*inputs)
    for part, flag in flags.items():
        part.training = flag
    return counter.flops


class _FlopInterpreter(fx.Interpreter):
    """Run a graph and note how much each node adds to the count."""

    def __init__(self, root: nn.Module, graph: fx.Graph) -> None:
        super().__init__(root, graph=graph)
        self.mode = FlopCounterMode(display=False)
        self.flops: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node between two readings."""
        before = self.mode.get_total_flops()
        value = super().run_node(n)
        self.flops[n] = self.mode.get_total_flops() - before
        return value
