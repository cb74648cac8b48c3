"""The second front end: torch.export, for backbones that branch where torch.fx cannot follow.

Export runs the module on an example, so what it branches on may be a shape or an argument's type.
The price: image size, device and dtype are those of the example from then on; the batch stays free.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg


def export_graph(root: nn.Module, example: Tensor) -> fx.Graph:
    """Return the graph of `root` in its present mode, its parameters and buffers as get_attr nodes.

    Args:
        root: tensors made in the forward pass are registered on it as non-persistent buffers.
        example: an input it accepts, with at least two in the batch.

    Raises:
        ValueError: the forward pass updates buffers, which export turns into outputs.
        Exception: whatever torch.export raises where it cannot follow.
    """
    batch = ({0: torch.export.Dim.AUTO},)
    program = torch.export.export(root, (example,), dynamic_shapes=batch).run_decompositions({})
    signature = program.graph_signature
    if signature.buffers_to_mutate:
        raise ValueError(f"updates {', '.join(signature.buffers_to_mutate.values())}")
    targets = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    for name, target in signature.inputs_to_lifted_tensor_constants.items():
        targets[name] = f"_export_{'train' if root.training else 'eval'}_{target.replace('.', '_')}"
        root.register_buffer(targets[name], program.constants[target], persistent=False)
    return _with_attributes(program.graph, targets)


def _with_attributes(graph: fx.Graph, targets: dict[str, str]) -> fx.Graph:
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
    return new
