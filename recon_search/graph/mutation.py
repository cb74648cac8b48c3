"""In-place operations: which nodes write into storage that other nodes hold.

No list of names tells (`add_`, `relu(inplace=True)`, `x[:, 0] = y`, a timm function that writes
into its argument), so the graph is run once and each tensor's version, content and storage are
watched. The same run shows whether the graph computes what the module does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from recon_search.chance import forked
from recon_search.errors import BackboneError
from recon_search.graph.example import Inputs, refused
from recon_search.graph.tensors import clear_caches, named_tensors
from recon_search.graph.trace import Trace


@dataclass(frozen=True)
class Effects:
    """What the nodes of one graph share and overwrite. A storage goes by the node that made it.

    Attributes:
        plain: the nodes whose value is one tensor.
        holds: for each node, the storages of its value that some node overwrites.
        writes: for each node, the storages of graph values that it overwrites.
        updates: for each node, the first names of the parameters and buffers it overwrites.
    """

    plain: set[fx.Node] = field(default_factory=set)
    holds: dict[fx.Node, frozenset[fx.Node]] = field(default_factory=dict)
    writes: dict[fx.Node, frozenset[fx.Node]] = field(default_factory=dict)
    updates: dict[fx.Node, frozenset[str]] = field(default_factory=dict)


def watch(trace: Trace, training: bool, inputs: Inputs) -> Effects:
    """Run a graph of `trace` once on `inputs` and see what it overwrites.

    The root runs as well, in the same random state, and must give the same output and buffers.
    Tensors, training flags and random state of the root are put back as they were.

    Args:
        trace: its root is run, without gradients.
        training: which graph, and in which mode.
        inputs: an example of what the root accepts.

    Raises:
        BackboneError: the root does not accept the example, or computes something else than its
            graph.
    """
    root = trace.root
    flags = {part: part.training for part in root.modules()}
    watcher = _Watcher(trace, training)
    try:
        root.train(training)
        found = run_tracelessly(root, watcher.run, inputs)
        with trace.call.made_of(root):
            expected = run_tracelessly(root, root, inputs)
    except Exception as error:  # whatever the forward pass raises
        raise refused(root, inputs, error) from error
    finally:
        clear_caches(root)
        for part, flag in flags.items():
            part.training = flag
    if len(found) != len(expected) or not all(map(is_close, found, expected)):
        raise BackboneError(
            "A backbone's graph must compute what the backbone does, that of "
            f"{type(root).__name__} does not: its forward pass depends on what changes from call "
            "to call or on the Python type of its input. Make it a function of tensors."
        )
    return watcher.effects()


def run_tracelessly(root: nn.Module, forward: Callable[..., Any], inputs: Inputs) -> list[Tensor]:
    """Return copies of the output and of the buffers after a run that leaves no trace."""
    tensors = {tensor: tensor.detach().clone() for tensor in named_tensors(root).values()}
    with torch.no_grad(), forked():
        torch.manual_seed(0)
        output = forward(*pytree.tree_map(torch.clone, inputs))
        after = [tensor.clone() for tensor in (*_flat(output), *root.buffers())]
        for tensor, before in tensors.items():
            tensor.copy_(before)
    return after


def is_close(found: Tensor, expected: Tensor) -> bool:
    """Compare two tensors loosely: an exported graph may sum in another order."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    if not found.is_floating_point():
        return torch.equal(found, expected)
    tolerance = max(torch.finfo(found.dtype).eps, 1e-7) ** 0.5
    size = expected.nan_to_num(0, 0, 0).abs().max().item() if expected.numel() else 0.0
    return torch.allclose(found, expected, tolerance, tolerance * size, equal_nan=True)


class _Watcher(fx.Interpreter):
    """Run a graph, keep all values alive, and note what changes in place."""

    def __init__(self, trace: Trace, training: bool) -> None:
        # Values stay alive so that no storage address is used twice.
        super().__init__(trace.root, garbage_collect_values=False, graph=trace.graphs[training])
        self.trace = trace
        self.tensors = named_tensors(trace.root)
        self.owners = {_storage(t): trace.names[name] for name, t in self.tensors.items()}
        self.storages: dict[fx.Node, set[int]] = {}
        self.written: dict[fx.Node, set[int]] = {}
        self.plain: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and compare what it was given and what it read before and after."""
        tensors = [tensor for node in n.all_input_nodes for tensor in _flat(self.env[node])]
        tensors += [self.tensors[name] for name in self.trace.uses(n)]
        # The version alone misses the statistics of batch_norm and what is done to `x.data`.
        before = [(tensor._version, tensor.clone()) for tensor in tensors]
        value = super().run_node(n)
        self.storages[n] = {_storage(tensor) for tensor in _flat(value)}
        self.written[n] = {
            _storage(tensor)
            for tensor, (version, content) in zip(tensors, before, strict=True)
            if tensor._version > version or not bool(((tensor == content) | tensor.isnan()).all())
        }
        if isinstance(value, Tensor):
            self.plain.add(n)
        return value

    def effects(self) -> Effects:
        """Sum up the run; a write into a storage of the root counts as an update of its tensor."""
        made_by: dict[int, fx.Node] = {}
        for node, storages in self.storages.items():
            made_by.update(dict.fromkeys(storages - made_by.keys(), node))
        overwritten = set().union(*self.written.values()) - self.owners.keys()
        found = Effects(self.plain)
        for node, written in self.written.items():
            found.holds[node] = frozenset(made_by[s] for s in self.storages[node] & overwritten)
            found.writes[node] = frozenset(made_by[s] for s in written & overwritten)
            found.updates[node] = frozenset(self.owners[s] for s in written & self.owners.keys())
        return found


def _flat(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)
    elif isinstance(value, dict):
        yield from _flat([*value.values()])
    elif dataclasses.is_dataclass(value):
        yield from _flat(vars(value))


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
