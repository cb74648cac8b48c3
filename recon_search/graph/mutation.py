"""In-place operations: which nodes write into storage that other nodes hold.

No list of names tells (`add_`, `relu(inplace=True)`, `x[:, 0] = y`, a timm function that writes
into its argument), so the graph is run once and each tensor's version and storage are watched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from recon_search.errors import BackboneError
from recon_search.graph.tensors import named_tensors
from recon_search.graph.trace import Trace


@dataclass(frozen=True)
class Effects:
    """What the nodes of one graph share and overwrite. A storage goes by the node that made it.

    Attributes:
        holds: for each node, the storages of its value that some node overwrites.
        writes: for each node, the storages of graph values that it overwrites.
        updates: for each node, the first names of the parameters and buffers it overwrites.
    """

    holds: dict[fx.Node, frozenset[fx.Node]] = field(default_factory=dict)
    writes: dict[fx.Node, frozenset[fx.Node]] = field(default_factory=dict)
    updates: dict[fx.Node, frozenset[str]] = field(default_factory=dict)


def watch(trace: Trace, training: bool, example: Tensor) -> Effects:
    """Run a graph of `trace` once on `example` and see what it overwrites.

    Buffers, training flags and random state are put back as they were.

    Args:
        trace: its root is run, without gradients.
        training: which graph, and in which mode.
        example: an input the root accepts.

    Raises:
        BackboneError: the root does not accept the example.
    """
    root = trace.root
    flags = {part: part.training for part in root.modules()}
    kept = {name: buffer.clone() for name, buffer in root.named_buffers()}
    watcher = _Watcher(trace, training)
    try:
        with torch.no_grad(), torch.random.fork_rng():
            root.train(training)
            watcher.run(example)
    except Exception as error:  # whatever the forward pass raises
        raise BackboneError(
            "A backbone must accept the example input, "
            f"{type(root).__name__} refuses one of shape {tuple(example.shape)} "
            f"({type(error).__name__}: {str(error).partition(chr(10))[0]}). Pass example=."
        ) from error
    finally:
        for part, flag in flags.items():
            part.training = flag
        with torch.no_grad():
            for name, buffer in root.named_buffers():
                buffer.copy_(kept[name])
    return watcher.effects()


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

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and compare what it was given and what it read before and after."""
        tensors = [tensor for node in n.all_input_nodes for tensor in _flat(self.env[node])]
        tensors += [self.tensors[name] for name in self.trace.uses(n)]
        before = [self._state(tensor) for tensor in tensors]
        value = super().run_node(n)
        self.storages[n] = {_storage(tensor) for tensor in _flat(value)}
        self.written[n] = {
            _storage(tensor)
            for tensor, (version, content) in zip(tensors, before, strict=True)
            if tensor._version > version
            or (content is not None and not torch.equal(tensor, content))
        }
        return value

    def _state(self, tensor: Tensor) -> tuple[int, Tensor | None]:
        """Return version and, for a buffer, content: batch_norm updates statistics unversioned."""
        is_buffer = _storage(tensor) in self.owners and not isinstance(tensor, nn.Parameter)
        return tensor._version, tensor.clone() if is_buffer else None

    def effects(self) -> Effects:
        """Sum up the run; a write into a storage of the root counts as an update of its tensor."""
        made_by: dict[int, fx.Node] = {}
        for node, storages in self.storages.items():
            made_by.update(dict.fromkeys(storages - made_by.keys(), node))
        overwritten = set().union(*self.written.values()) - self.owners.keys()
        found = Effects()
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
        for item in value.values():
            yield from _flat(item)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
