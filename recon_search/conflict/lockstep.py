"""The tasks' backward passes in lockstep: only one parameter's gradients exist at a time.

Autograd's own engine finishes one loss before it begins the next, so that Gramians need every
task's gradients of the whole network at once. Here all losses go down the graph together, node by
node, and what arrives at a parameter is used and dropped. Each task's gradient is computed once, as
by T passes of the engine, and the numbers are the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Node = Any
"""A node of the autograd graph; those written in Python are no `torch.autograd.graph.Node`."""


@torch.no_grad()
def lockstep_gramians(
    losses: Sequence[Tensor], layers: Mapping[str, Sequence[nn.Parameter]]
) -> Tensor:
    """Add the gradient of the sum of the losses to `.grad`, and compute every layer's Gramian.

    Needs one set of gradients, `.grad`, and beside it T times the largest parameter and the tasks'
    gradients of activations. Time is that of T backward passes. The graph is kept until the losses
    are dropped. Hooks on tensors and graph nodes are not called.

    Args:
        losses: one scalar a task, T in all, each with a graph.
        layers: the parameters of each layer, L in all; of a split network those of all copies.

    Returns:
        Gramians of shape (L, T, T), as `layer_gramians` gives them.
    """
    n_tasks = len(losses)
    rows: dict[Tensor, int] = {
        parameter: row for row, layer in enumerate(layers.values()) for parameter in layer
    }
    products: dict[tuple[int, int, int], Tensor] = {}  # by layer and tasks i <= j
    missing = _count_edges([loss.grad_fn for loss in losses])
    arrived: dict[Node, dict[int, list[Tensor | None]]] = {node: {} for node in missing}
    for task, loss in enumerate(losses):
        _arrive(arrived[loss.grad_fn], task, 0, torch.ones_like(loss), loss.grad_fn)
    ready = [node for node, count in missing.items() if count == 0]
    while ready:
        node = ready.pop()
        by_task = arrived.pop(node)
        if hasattr(node, "variable"):  # a leaf
            _use(node.variable, by_task, products, rows)
            continue
        targets = node.next_functions
        for task in list(by_task):
            _pass_on(node, task, by_task.pop(task), arrived)
        for target, _ in targets:
            if target is not None:
                missing[target] -= 1
                if missing[target] == 0:
                    ready.append(target)
    gramians = losses[0].new_zeros(len(layers), n_tasks, n_tasks)
    if products:
        where = torch.tensor(list(products), device=gramians.device).T
        gramians[tuple(where)] = torch.stack(list(products.values()))
    return gramians + gramians.triu(1).transpose(1, 2)


def _count_edges(roots: Sequence[Node]) -> dict[Node, int]:
    """How many edges lead to each node that the roots reach; roots, too, may have some."""
    count: dict[Node, int] = dict.fromkeys(roots, 0)
    waiting = list(count)
    while waiting:
        for target, _ in waiting.pop().next_functions:
            if target is None:
                continue
            if target not in count:
                count[target] = 0
                waiting.append(target)
            count[target] += 1
    return count


def _pass_on(
    node: Node,
    task: int,
    gradients: list[Tensor | None],
    arrived: Mapping[Node, dict[int, list[Tensor | None]]],
) -> None:
    """Take a task's gradients of a node's outputs to the nodes that made its inputs."""
    results = node(*gradients) if callable(node) else node.apply(*gradients)
    if not isinstance(results, tuple):
        results = (results,)
    for (target, index), gradient in zip(node.next_functions, results, strict=True):
        if target is not None and gradient is not None:
            _arrive(arrived[target], task, index, gradient, target)


def _arrive(
    slots: dict[int, list[Tensor | None]], task: int, index: int, gradient: Tensor, node: Node
) -> None:
    """Add a gradient of a node's output; sums over broadcast dimensions, as the engine does."""
    expected = node._input_metadata
    shape, dtype = torch.Size(expected[index].shape), expected[index].dtype
    if gradient.shape != shape:
        gradient = gradient.sum_to_size(shape)
    if gradient.dtype != dtype:
        gradient = gradient.to(dtype)
    known = slots.setdefault(task, [None] * len(expected))
    present = known[index]
    known[index] = gradient if present is None else present + gradient


def _use(
    parameter: Tensor,
    by_task: Mapping[int, list[Tensor | None]],
    products: dict[tuple[int, int, int], Tensor],
    rows: Mapping[Tensor, int],
) -> None:
    """Add the tasks' gradients of a parameter to its `.grad` and to its layer's Gramian."""
    found = {task: gradient for task, (gradient,) in by_task.items() if gradient is not None}
    if not found:
        return
    # Autograd may hand out one tensor for two parameters: add in place only to a sum.
    first, *others = found.values()
    total = first + others.pop(0) if others else first.clone()
    for gradient in others:
        total += gradient
    if parameter.grad is None:
        parameter.grad = total
    else:
        parameter.grad += total
    del first, others, total
    if parameter not in rows:
        return
    flat = {task: found[task].reshape(-1) for task in sorted(found)}
    for i, j in itertools.combinations_with_replacement(flat, 2):
        place = rows[parameter], i, j
        product = flat[i] @ flat[j]
        products[place] = products[place] + product if place in products else product
