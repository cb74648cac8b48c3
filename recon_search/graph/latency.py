"""How long a split network will take, estimated before it is built."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from recon_search.chance import forked
from recon_search.graph.example import Inputs
from recon_search.graph.layout import Layout
from recon_search.graph.partition import Group
from recon_search.graph.trace import Trace


@dataclass(frozen=True)
class Latency:
    """Seconds of an evaluating forward pass, as the sum over its operations.

    Attributes:
        base: of the unsplit backbone.
        groups: of what is computed once for exactly this group of tasks.
    """

    base: float
    groups: Mapping[Group, float]

    @property
    def total(self) -> float:
        """Seconds of trunk and branches, one after the other."""
        return sum(self.groups.values())


def latency(traced: Trace, layout: Layout, inputs: Inputs, repeats: int = 5) -> Latency:
    """Time each operation of the unsplit backbone and bill it to all groups that compute it.

    An estimate: branches run one after the other, and a copy takes as long as the original. It
    holds for the batch size, the threads and the machine it is taken on.

    Args:
        traced: the unsplit backbone.
        layout: who computes what.
        inputs: the input to time with, on the CPU.
        repeats: passes after a first one to warm up; the median of each operation counts.
    """
    timer = _Timer(traced.root, traced.graphs[False])
    flags = {part: part.training for part in traced.root.modules()}
    traced.root.eval()
    with torch.inference_mode(), forked():
        for _ in range(repeats + 1):
            timer.run(*inputs)
    for part, flag in flags.items():
        part.training = flag
    groups: dict[Group, float] = defaultdict(float)
    base = 0.0
    for node, seconds in timer.seconds.items():
        median = statistics.median(seconds[1:])
        base += median
        for group in layout.runs(node):
            groups[group] += median
    return Latency(base, dict(groups))


class _Timer(fx.Interpreter):
    """Run a graph and note how long each operation takes."""

    def __init__(self, root: torch.nn.Module, graph: fx.Graph) -> None:
        super().__init__(root, graph=graph)
        self.seconds: dict[fx.Node, list[float]] = defaultdict(list)

    def run_node(self, n: fx.Node) -> Any:
        """Run one node between two looks at the clock."""
        started = time.perf_counter()
        value = super().run_node(n)
        if n.op.startswith("call_"):
            self.seconds[n].append(time.perf_counter() - started)
        return value
