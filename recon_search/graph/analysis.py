"""A backbone followed once: its graphs, what they overwrite, its layers.

What is found holds for every module that differs in its weights alone, so one analysis serves all
networks that are built of one backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor, fx, nn

from recon_search.errors import BackboneError
from recon_search.graph.calls import Reads, kind_of
from recon_search.graph.example import Inputs, example_input, one_of
from recon_search.graph.layers import LayerInfo, describe_traced, digest_of, layer_names
from recon_search.graph.layout import Layout, lay_out
from recon_search.graph.mutation import Effects, is_close, run_tracelessly, watch
from recon_search.graph.need import find_needed, find_users
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
        pooled: the graphs of its forward pass, whatever was followed; layers, their order and the
            digest are those of the forward pass.
        reads: what each task reads, where vector and pyramid are followed.
    """

    trace: Trace
    inputs: Inputs
    pooled: Trace
    reads: Mapping[str, Reads] = field(default_factory=dict)

    @cached_property
    def effects(self) -> Mapping[bool, Effects]:
        """What the graph of each mode overwrites."""
        graphs = self.trace.graphs
        return {training: watch(self.trace, training, self.inputs) for training in graphs}

    @cached_property
    def layers(self) -> dict[str, tuple[str, ...]]:
        """First names of the parameters of each splittable layer, in order of first use.

        Of a pyramid those layers of the forward pass that it uses, in the same order.
        """
        known = layer_names(self.pooled)
        if self.trace.call.kind != "pyramid":
            return known
        needed = find_needed(self.trace, self.effects, ["pyramid"])
        used = {name for name, tasks in find_users(self.trace, needed, [0]).items() if tasks}
        return {layer: names for layer, names in known.items() if used.intersection(names)}

    @cached_property
    def infos(self) -> list[LayerInfo]:
        """Type, shape and parameter count of each splittable layer (see `describe`)."""
        return [info for info in describe_traced(self.pooled) if info.name in self.layers]

    @cached_property
    def digest(self) -> str:
        """Digest of the names and shapes of the layers (see `backbone_digest`)."""
        return digest_of(self.pooled)

    @cached_property
    def flops(self) -> Mapping[fx.Node, int]:
        """FLOPs of each node of the evaluation graph, for one input."""
        return count_flops(self.trace, one_of(self.inputs))

    @cached_property
    def repeated(self) -> Mapping[str, frozenset[fx.Node]]:
        """The nodes with work that each task computes for itself where a layer is private.

        Where several layers are, these are the nodes of any of them: a node is computed anew if
        anything that it reads is.
        """
        tasks = tuple(self.reads) or ("a", "b")
        layouts = {layer: self.lay_out(Split.private([layer], tasks)) for layer in self.layers}
        return {
            layer: frozenset(node for node in self.flops if len(layout.runs(node)) > 1)
            for layer, layout in layouts.items()
        }

    def flops_of_private(self, layers: Iterable[str], n_tasks: int) -> float:
        """Do what `flops_of` does where some layers are private to every task, much faster.

        Where some tasks read a vector and some a pyramid, it is an upper bound.
        """
        again = frozenset().union(*(self.repeated[layer] for layer in layers))
        more = (n_tasks - 1) * sum(self.flops[node] for node in again)
        return 1 + more / max(sum(self.flops.values()), 1)

    def flops_of(self, split: Split) -> float:
        """FLOPs of the network that a split makes, as a multiple of the unsplit one's.

        Raises:
            SplitError: the split does not fit the backbone.
        """
        layout = self.lay_out(split)
        total = sum(n * len(layout.runs(node)) for node, n in self.flops.items())
        return total / max(sum(self.flops.values()), 1)

    def lay_out(self, split: Split) -> Layout:
        """Find out who shares what when a split is applied.

        Layers that a pyramid does not use, such as the classifier, may be split; those who do not
        use them share them.

        Raises:
            SplitError: the split does not fit the backbone.
            BackboneError: the graphs do not compute what the backbone does.
        """
        split.check_trace(self.pooled)
        known = layer_names(self.pooled)
        partitions = {
            name: from_groups(groups, split.tasks)
            for layer, groups in split.layers.items()
            for name in known[layer]
        }
        reads = [self.reads_of(task) for task in split.tasks]
        return lay_out(self.trace, self.effects, split.tasks, partitions, reads)

    def reads_of(self, task: str) -> Reads:
        """Tell whether a task reads the vector or the pyramid.

        Raises:
            BackboneError: both are followed, and nobody said what this task reads.
        """
        kind = self.trace.call.kind
        if kind != "both":
            return "pyramid" if kind == "pyramid" else "vector"
        if task not in self.reads:
            raise BackboneError(
                f"What is read must be given for each task, '{task}' is none of "
                f"{list(self.reads)}. Name it, too."
            )
        return self.reads[task]


def analyse(
    backbone: nn.Module,
    example: Any = None,
    *,
    call: str | Mapping[str, Reads] = "forward",
    levels: Sequence[int] | None = None,
) -> Analysis:
    """Follow an unsplit backbone in both modes.

    Args:
        backbone: left untouched.
        example: what it is called with, as for `branch`; made from its configuration if None.
        call: `forward`, `pyramid`, or for each task whether it reads the `vector` or the `pyramid`.
        levels: which features make the pyramid (see `trace`).

    Raises:
        BackboneError: the backbone's graph cannot be taken apart.
    """
    pooled = trace(backbone, example)
    inputs = (example_input(pooled.root),) if pooled.example is None else pooled.example
    reads = call if isinstance(call, Mapping) else {}
    kind = kind_of([*reads.values()]) if isinstance(call, Mapping) else call
    if kind == "forward":
        return Analysis(pooled, inputs, pooled)
    traced = trace(backbone, inputs, call=kind, levels=levels)
    if kind == "both":
        _check_both(traced, inputs)
    return Analysis(traced, inputs, pooled, dict(reads))


def _check_both(traced: Trace, inputs: Inputs) -> None:
    """Make sure that one pass gives the vector and the pyramid that two would.

    Raises:
        BackboneError: it does not.
    """
    root, call = traced.root, traced.call
    flags = {part: part.training for part in root.modules()}
    pyramid, vector = call.of("pyramid"), call.of("vector")

    def computed(what: Callable[[Any], list[Tensor]]) -> list[Tensor]:
        found = run_tracelessly(root, what, inputs)
        return found[: len(found) - len([*root.buffers()])]

    def one_pass(x: Any) -> list[Tensor]:
        features, maps = call.apply(root, x)
        return [features, *maps]

    try:
        for training in (True, False):
            root.train(training)
            found = computed(one_pass)
            expected = computed(lambda x: [vector.apply(root, x)])
            expected += computed(lambda x: pyramid.apply(root, x))
            if len(found) != len(expected) or not all(map(is_close, found, expected)):
                raise BackboneError(
                    "Tasks that read vectors and tasks that read pyramids need a backbone that "
                    f"gives both in one pass, what {type(root).__name__} gives is another then. "
                    "Choose another backbone, or tasks that read alike."
                )
    finally:
        for part, flag in flags.items():
            part.training = flag
