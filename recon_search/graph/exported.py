"""The second front end: torch.export, for backbones that branch where torch.fx cannot follow.

Export runs the module on an example, so what it branches on may be a shape or an argument's type.
The price: image size, device and dtype are those of the example from then on; the batch stays free.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from recon_search.errors import BackboneError


def export_graph(root: nn.Module, example: Tensor) -> fx.Graph:
    """Return the graph of `root` in its present mode, its parameters and buffers as get_attr nodes.

    Args:
        root: tensors made in the forward pass are registered on it as non-persistent buffers.
        example: an input it accepts, with at least two in the batch.

    Raises:
        ValueError: the forward pass updates buffers, which export turns into outputs, or
            computes with weights under `no_grad`, which it drops.
        Exception: whatever torch.export raises where it cannot follow.
    """
    batch = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(root, (example,), dynamic_shapes=batch)
    _check_grad_mode(program)
    program = program.run_decompositions({torch.ops.aten.copy.default: _copy})
    signature = program.graph_signature
    if signature.buffers_to_mutate:
        raise ValueError(f"updates {', '.join(signature.buffers_to_mutate.values())}")
    targets = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    for name, target in signature.inputs_to_lifted_tensor_constants.items():
        targets[name] = f"_export_{'train' if root.training else 'eval'}_{target.replace('.', '_')}"
        root.register_buffer(targets[name], program.constants[target], persistent=False)
    return _with_attributes(program.graph, targets, example)


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


def _check_grad_mode(program: torch.export.ExportedProgram) -> None:
    """Refuse `no_grad` where it matters: `run_decompositions` writes its content out without it."""
    signature = program.graph_signature
    trained: set[str] = set(signature.inputs_to_parameters)
    for node in program.graph.nodes:
        reads_trained = any(source.name in trained for source in node.all_input_nodes)
        if node.target is torch.ops.higher_order.wrap_with_set_grad_enabled and reads_trained:
            raise ValueError("computes with weights under no_grad")
        if reads_trained:
            trained.add(node.name)


def _copy(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """Compute what `target.copy_(source)` leaves in `target`; aten's own has no derivative."""
    return source.to(target).expand(target.shape)


def _with_attributes(graph: fx.Graph, targets: dict[str, str], example: Tensor) -> fx.Graph:
    """Copy an exported graph, reading each tensor where it is first used instead of as an input."""
    new = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}

    def read(node: fx.Node) -> fx.Node:
        if node not in copies:
            copies[node] = new.get_attr(targets[node.name])
        return copies[node]

    for node in graph.nodes:
        if node.op == "output":
            (output,) = node.args[0]
            new.output(map_arg(output, read))
        elif (
            node.name not in targets
            and node.target != torch.ops.aten._assert_tensor_metadata.default
        ):
            copies[node] = new.node_copy(node, read)
            if node.op == "placeholder":
                shape = tuple(example.shape[1:])
                new.call_function(expect_like, (copies[node], shape, example.dtype))
    return new
