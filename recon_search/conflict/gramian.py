"""Per-task gradients and their Gramians, layer by layer.

For layer l, J_l of shape (T, P_l) holds in row t the gradient of task t's loss, and
G_l = J_l J_l^T of shape (T, T) is its Gramian. Cosines, gradient norms and every Gramian
weighting (PCGrad, MGDA, CAGrad ...) follow from the G_l alone.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from recon_search.conflict.sketch import Sketch, Sketches
from recon_search.errors import RecipeError

Gradients = list[dict[nn.Parameter, Tensor]]
"""One dict a task: the gradient of its loss for each parameter the loss reaches."""

FEW_TASKS = 8
"""Up to here the CPU takes inner products in pairs; above, one matrix product copies less."""

PIECE = 2**15
"""Columns of a Jacobian that the CPU multiplies at once: so many rows stay in its cache."""


class Copy(Protocol):
    """One copy of a split layer, as `BranchedBackbone.layers` gives them."""

    @property
    def parameters(self) -> Sequence[nn.Parameter]:
        """Its weight, bias, ..."""


Layer = Sequence[nn.Parameter] | Sequence[Copy]


def gramians(
    losses: Iterable[Tensor | None] | Mapping[str, Tensor | None],
    layers: Mapping[str, Layer],
    *,
    allow_unused: bool = False,
    sketch: Sketch | None = None,
) -> Tensor:
    """Compute the Gramian of every layer from the tasks' losses; the autograd graph is kept.

    Args:
        losses: one scalar a task, T in all, in the order of the tasks; a mapping's is its own. None
            for a task that has no loss in this step.
        layers: L layers, each its parameters, as `recon_search.layers` gives them, or its copies,
            as `BranchedBackbone.layers` does. Parameters that are frozen add nothing.
        allow_unused: layers that no loss depends on, or that are frozen, have zeros; otherwise they
            are an error, unless no task has a loss.
        sketch: keeps random projections in place of T gradients, of which one exists at a time; the
            Gramians are then unbiased estimates, with the error that `Sketch` states.

    Returns:
        Gramians of shape (L, T, T), symmetric and positive semi-definite. Rows and columns of a
        task that has no loss, or whose loss does not reach a layer, are zero.

    Raises:
        RecipeError: a loss is no scalar with a graph, `layers` holds something else than parameters
            of layers, or a layer is frozen or not used by any loss, the first of which is named.

    Examples:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> left, right = layer(torch.tensor([[3.0, 4.0], [-4.0, 3.0]])).flatten()
        >>> gramians({"left": left, "right": right}, {"fc": [layer.weight]})
        tensor([[[25.,  0.],
                 [ 0., 25.]]])
    """
    by_task = _check_losses(losses)
    blocks = _list_blocks(layers)
    listed = {name: [p for block in own for p in block] for name, own in blocks.items()}
    used = {name: [p for p in layer if p.requires_grad] for name, layer in listed.items()}
    if not allow_unused and (frozen := [name for name, layer in used.items() if not layer]):
        raise RecipeError(
            f"Every layer must have a trainable parameter, '{frozen[0]}' is frozen. Leave it out "
            "of the layers, or pass allow_unused=True for zeros."
        )
    for task, loss in by_task.items():
        if loss is not None and not loss.requires_grad:
            raise RecipeError(
                f"A loss must depend on trainable parameters, that of task {task} is a constant. "
                "Pass None in a step without it; compute it outside of torch.no_grad."
            )
    parameters = [parameter for layer in used.values() for parameter in layer]
    present = [task for task, loss in enumerate(by_task.values()) if loss is not None]
    known = [loss for loss in by_task.values() if loss is not None]
    gradients: Gradients = [{} for _ in by_task]
    sketches = None if sketch is None else Sketches(sketch, [*blocks.values()], len(by_task))
    reached: set[nn.Parameter] = set()
    for number, one in zip(present, known, strict=True):
        (found,) = task_gradients([one], [parameters], retain_graph=True)
        reached.update(found)
        if sketches is None:
            gradients[number] = found
        else:
            sketches.take_all(number, found)
        del found
    unused = [name for name, layer in used.items() if not reached.intersection(layer)]
    if present and unused and not allow_unused:
        raise RecipeError(
            f"Some loss must depend on every layer, none does on '{unused[0]}' ({len(unused)} of "
            f"{len(used)} layers are unused). Pass the layers of the network that computed the "
            "losses, or allow_unused=True for zeros."
        )
    if sketches is None:
        return layer_gramians(gradients, listed)
    sketches.sketch.step += 1
    return sketches.gramians(_zero(listed))


def _check_losses(
    losses: Iterable[Tensor | None] | Mapping[str, Tensor | None],
) -> dict[str, Tensor | None]:
    """The losses by the name of their task, or by its place."""
    is_one = isinstance(losses, Tensor) and losses.ndim == 0
    if is_one or not isinstance(losses, Iterable):
        raise RecipeError(
            "The losses must be one scalar a task in a sequence or a mapping, got "
            f"{_describe(losses)}. Pass [loss_a, loss_b] or {{'a': loss_a, 'b': loss_b}}."
        )
    if isinstance(losses, Mapping):
        by_task = {f"'{task}'": loss for task, loss in losses.items()}
    else:
        by_task = {f"number {task}": loss for task, loss in enumerate(losses)}
    if not by_task:
        raise RecipeError(
            "The losses must be one scalar a task, got none at all. Pass None for each task that "
            "has no loss in this step."
        )
    for task, loss in by_task.items():
        if loss is not None and not isinstance(loss, Tensor):
            raise RecipeError(
                f"A loss must be a tensor, or None in a step without it, that of task {task} is "
                f"{_describe(loss)}. Pass what the loss function returned."
            )
        if loss is not None and loss.numel() != 1:
            raise RecipeError(
                f"A loss must be one number, that of task {task} is {_describe(loss)}. Take its "
                "mean over the samples first."
            )
    return by_task


def _list_blocks(layers: Mapping[str, Layer]) -> dict[str, list[list[nn.Parameter]]]:
    """The parameters of each layer: those of each of its copies apart, all others together."""
    if not isinstance(layers, Mapping) or not layers:
        raise RecipeError(
            "The layers must be a mapping from names to lists of parameters, got "
            f"{_describe(layers)}. Pass recon_search.layers(backbone)."
        )
    blocks: dict[str, list[list[nn.Parameter]]] = {}
    for name, layer in layers.items():
        is_list = isinstance(layer, Iterable) and not isinstance(layer, str | Tensor)
        members: Iterable[Any] = layer if is_list else [layer]
        own: list[nn.Parameter] = []
        blocks[name] = [own]
        for member in members:
            if is_list and isinstance(member, Tensor) and member.is_leaf:
                own.append(member)  # type: ignore[arg-type]
            elif is_list and isinstance(getattr(member, "parameters", None), Sequence):
                blocks[name].append(list(member.parameters))
            else:
                raise RecipeError(
                    f"A layer must be a list of parameters, '{name}' holds {_describe(member)}. "
                    "Pass recon_search.layers(backbone)."
                )
    return blocks


def _describe(value: object) -> str:
    """Name what was found instead of something else."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if value is None or isinstance(value, str | int | float):
        return repr(value)
    is_empty = isinstance(value, Mapping | Sequence) and not value
    return f"an empty {type(value).__name__}" if is_empty else f"a {type(value).__name__}"


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
    # Of a layer that no task's loss reaches:
    zero = _zero(layers).new_zeros(n_tasks, n_tasks)
    return torch.stack([zero if row is None else row for row in rows])


def _zero(layers: Mapping[str, Sequence[nn.Parameter]]) -> Tensor:
    """A tensor of the type and on the device of the layers' Gramians."""
    like = next((p for parameters in layers.values() for p in parameters), torch.zeros(()))
    return _at_least_single(like.detach().new_zeros(()))


def _gramian(gradients: Sequence[Sequence[Tensor]]) -> Tensor:
    """Gramian (n, n) of n equally shaped lists of gradients.

    A GPU wants few kernels; on a CPU copying the gradients of a few tasks costs more than their
    products.
    """
    flat = [[_at_least_single(gradient.reshape(-1)) for gradient in row] for row in gradients]
    is_small = sum(gradient.numel() for gradient in flat[0]) <= PIECE
    if flat[0][0].device.type != "cpu" or (len(flat) > FEW_TASKS and is_small):
        jacobian = torch.cat(list(itertools.chain(*flat))).view(len(flat), -1)  # (n, P)
        return jacobian @ jacobian.T
    if len(flat) > FEW_TASKS:
        total = flat[0][0].new_zeros(len(flat), len(flat))
        for rows in zip(*flat, strict=True):
            for pieces in zip(*(row.split(PIECE) for row in rows), strict=True):
                jacobian = torch.stack(pieces)
                total += jacobian @ jacobian.T
        return total
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
