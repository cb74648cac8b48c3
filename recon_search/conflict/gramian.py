"""Per-task gradients and their Gramians, layer by layer.

For layer l, J_l of shape (T, P_l) holds in row t the gradient of task t's loss, and
G_l = J_l J_l^T of shape (T, T) is its Gramian. Cosines, gradient norms and every Gramian
weighting (PCGrad, MGDA, CAGrad ...) follow from the G_l alone.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

Gradients = list[dict[nn.Parameter, Tensor]]
"""One dict a task: the gradient of its loss for each parameter the loss reaches."""


def gramians(losses: Sequence[Tensor], layers: Mapping[str, Sequence[nn.Parameter]]) -> Tensor:
    """Compute the Gramian of every layer from the tasks' losses; the autograd graph is kept.

    Args:
        losses: one scalar a task, T in all.
        layers: the parameters of each layer, as `recon_search.layers` gives them, L in all.

    Returns:
        Gramians of shape (L, T, T), symmetric and positive semi-definite. Rows and columns of a
        task whose loss does not reach a layer are zero.
    """
    parameters = [parameter for layer in layers.values() for parameter in layer]
    gradients = task_gradients(losses, [parameters] * len(losses), retain_graph=True)
    return layer_gramians(gradients, layers)


def task_gradients(
    losses: Sequence[Tensor],
    parameters: Sequence[Sequence[nn.Parameter]],
    *,
    retain_graph: bool = False,
    batched: bool = False,
) -> Gradients:
    """Differentiate each task's loss: one forward pass, T backward passes.

    Args:
        losses: one scalar a task.
        parameters: for each task, the parameters to differentiate for; leaving out those that a
            task does not use saves time.
        retain_graph: keep the autograd graph after the last task too.
        batched: run the backward passes as one, vectorised over the tasks (`is_grads_batched`),
            and not in turn. A wanted parameter that only other losses reach gets zeros. Slower on
            the CPU, see `tests/benchmarks/bench_step.py`.
    """
    if batched:
        return _batched_gradients(losses, parameters, retain_graph)
    gradients: Gradients = []
    for task, (loss, wanted) in enumerate(zip(losses, parameters, strict=True)):
        keep = retain_graph or task < len(losses) - 1
        found = torch.autograd.grad(loss, wanted, retain_graph=keep, allow_unused=True)
        gradients.append(
            {
                parameter: gradient
                for parameter, gradient in zip(wanted, found, strict=True)
                if gradient is not None
            }
        )
    return gradients


def _batched_gradients(
    losses: Sequence[Tensor], parameters: Sequence[Sequence[nn.Parameter]], retain_graph: bool
) -> Gradients:
    every = list(dict.fromkeys(parameter for wanted in parameters for parameter in wanted))
    stack = torch.stack(list(losses))
    found = torch.autograd.grad(
        stack,
        every,
        torch.eye(len(stack), dtype=stack.dtype, device=stack.device),
        retain_graph=retain_graph,
        allow_unused=True,
        is_grads_batched=True,
    )
    rows = {p: rows for p, rows in zip(every, found, strict=True) if rows is not None}  # (T, ...)
    return [
        {parameter: rows[parameter][task] for parameter in wanted if parameter in rows}
        for task, wanted in enumerate(parameters)
    ]


def layer_gramians(gradients: Gradients, layers: Mapping[str, Sequence[nn.Parameter]]) -> Tensor:
    """Compute (L, T, T) Gramians from gradients at hand.

    A layer of a split network lists the parameters of all its copies: a parameter that only some
    tasks use adds nothing to the rows of the others, so two tasks with private copies have
    inner product zero.
    """
    n_tasks = len(gradients)
    rows = []
    for parameters in layers.values():
        by_users: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
        for parameter in parameters:
            users = tuple(task for task in range(n_tasks) if parameter in gradients[task])
            if users:
                by_users[users].append(parameter)
        total: Tensor | None = None
        for users, used in by_users.items():
            block = _gramian([[gradients[task][parameter] for parameter in used] for task in users])
            if len(users) < n_tasks:
                block = _embed(block, users, n_tasks)
            total = block if total is None else total + block
        rows.append(total)
    like = next(parameter for parameters in layers.values() for parameter in parameters)
    # Of a layer that no task's loss reaches:
    zero = _at_least_single(like.detach()).new_zeros(n_tasks, n_tasks)
    return torch.stack([zero if row is None else row for row in rows])


def _gramian(gradients: Sequence[Sequence[Tensor]]) -> Tensor:
    """Gramian (n, n) of n equally shaped lists of gradients.

    A GPU wants few kernels; on a CPU copying the gradients costs more than their products.
    """
    flat = [[_at_least_single(gradient.reshape(-1)) for gradient in row] for row in gradients]
    if flat[0][0].device.type != "cpu":
        jacobian = torch.cat(list(itertools.chain(*flat))).view(len(flat), -1)  # (n, P)
        return jacobian @ jacobian.T
    products = [
        torch.stack([a @ b for a, b in zip(*rows, strict=True)]).sum()
        for rows in itertools.combinations_with_replacement(flat, 2)
    ]
    lower, upper = torch.triu_indices(len(flat), len(flat))
    block = products[0].new_zeros(len(flat), len(flat))
    block[lower, upper] = block[upper, lower] = torch.stack(products)
    return block


def _at_least_single(gradient: Tensor) -> Tensor:
    """Half precision becomes single: its squares overflow."""
    return gradient.float() if gradient.dtype in (torch.float16, torch.bfloat16) else gradient


def _embed(block: Tensor, users: tuple[int, ...], n_tasks: int) -> Tensor:
    """Place a Gramian of some tasks into the rows and columns of all tasks."""
    embedded = block.new_zeros(n_tasks, n_tasks)
    index = torch.tensor(users, device=block.device)
    embedded[index[:, None], index] = block
    return embedded
