"""The second front end: torch.export, for backbones that branch where torch.fx cannot follow.

Export runs the module on an example, so what it branches on may be a shape or an argument's type.
The price: image size, device and dtype are those of the example from then on; the batch stays free.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from recon_search.errors import BackboneError
from recon_search.graph.example import Inputs, input_names


def export_graph(root: nn.Module, inputs: Inputs) -> fx.Graph:
    """Return the graph of `root` in its present mode, its parameters and buffers as get_attr nodes.

    What the forward pass overwrites, running statistics among it, the graph overwrites. Outputs of
    several tensors keep their structure.

    Args:
        root: tensors made in the forward pass are registered on it as non-persistent buffers.
        inputs: what it is called with, at least two in the batch.

    Raises:
        ValueError: the forward pass computes with trainable weights under `no_grad`.
        Exception: whatever torch.export raises where it cannot follow.
    """
    batch = pytree.tree_map(lambda x: {0: torch.export.Dim.DYNAMIC} if x.ndim else None, inputs)
    inputs = pytree.tree_map(torch.clone, inputs)  # export takes one tensor given twice for one
    program = torch.export.export(root, inputs, dynamic_shapes=batch)
    signature = program.graph_signature
    targets = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    for name, target in signature.inputs_to_lifted_tensor_constants.items():
        targets[name] = f"_export_{'train' if root.training else 'eval'}_{target.replace('.', '_')}"
        root.register_buffer(targets[name], program.constants[target], persistent=False)
    new = fx.Graph()
    copies: dict[fx.Node, Any] = {}

    def read(node: fx.Node) -> Any:
        if node not in copies:
            copies[node] = new.get_attr(targets[node.name])
        return copies[node]

    nodes = program.graph.nodes
    given = [n for n in nodes if n.op == "placeholder" and n.name not in targets]
    copies |= zip(given, _place_inputs(new, root, inputs), strict=True)
    trained = {n for n in nodes if _is_trained(root, signature.inputs_to_parameters.get(n.name))}
    flat = _copy(new, program.graph_module, copies, read, trained)
    new.output(pytree.tree_unflatten(flat, program.call_spec.out_spec))
    return new


def expect_like(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Make sure that an input is such as the exported graph was made for; the batch is free.

    Raises:
        BackboneError: it is not.
    """
    if tuple(x.shape[1:]) != shape or x.dtype != dtype:
        raise BackboneError(
            f"This backbone, which torch.export traced, takes inputs of shape (B, "
            f"{', '.join(map(str, shape))}) and {dtype} only, got {tuple(x.shape)} and {x.dtype}. "
            "Branch it again with example= of that shape and type."
        )


def detach(value: Any) -> Any:
    """Detach all tensors of `value`: what enters a region under `no_grad`."""
    return pytree.tree_map_only(Tensor, Tensor.detach, value)


def _is_trained(root: nn.Module, name: str | None) -> bool:
    return name is not None and root.get_parameter(name).requires_grad


def _place_inputs(new: fx.Graph, root: nn.Module, inputs: Inputs) -> Iterator[fx.Node]:
    """Emit the arguments and, for each tensor they hold, a check; yield the tensors."""
    values = [new.placeholder(name) for name in input_names(root, len(inputs))]
    for value, example in zip(values, inputs, strict=True):
        for path, tensor in pytree.tree_flatten_with_path(example)[0]:
            node = value
            for step in path:
                key = step.key if isinstance(step, pytree.MappingKey) else vars(step)["idx"]
                node = new.call_function(operator.getitem, (node, key))
            new.call_function(expect_like, (node, tuple(tensor.shape[1:]), tensor.dtype))
            yield node


def _copy(
    new: fx.Graph,
    source: fx.GraphModule,
    copies: dict[fx.Node, Any],
    read: Callable[[fx.Node], Any],
    trained: set[fx.Node],
) -> list[Any]:
    """Copy an exported graph into `new`, and those that it calls; return its flat outputs.

    Args:
        new: gets the nodes.
        source: the graph, its inputs left out.
        copies: what stands for each node that is copied already.
        read: looks a node up in `copies`, or makes it a get_attr node at its first use.
        trained: the inputs that are trainable parameters.
    """
    for node in source.graph.nodes:
        if node.target is torch.ops.higher_order.wrap_with_set_grad_enabled:
            enabled, called, *arguments = node.args
            if not enabled and not trained.isdisjoint(arguments):
                raise ValueError("computes under no_grad with weights that train")
            values = map_arg(arguments, read)
            if not enabled:
                values = [new.call_function(detach, (value,)) for value in values]
            part: Any = source.get_submodule(str(called.target))
            inner = dict(zip(part.graph.find_nodes(op="placeholder"), values, strict=True))
            inside = {n for n, a in zip(inner, arguments, strict=True) if a in trained}
            copies[node] = _copy(new, part, inner, inner.__getitem__, inside)
        elif node.target is operator.getitem and isinstance(copies.get(node.args[0]), list):
            copies[node] = copies[node.args[0]][node.args[1]]
        elif node.op.startswith("call_") and node.target not in NOT_COPIED:
            copies[node] = new.node_copy(node, read)
    (output,) = source.graph.find_nodes(op="output")
    flat = output.args[0]
    return [map_arg(value, read) for value in (flat if isinstance(flat, Sequence) else [flat])]


NOT_COPIED = (torch.ops.aten._assert_tensor_metadata.default,)
