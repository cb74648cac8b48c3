"""Laws of a branched network, checked against unsplit eager models that hold one task's weights."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from recon_search.graph.branched import BranchedBackbone
from recon_search.graph.split import Split

TASKS = ("a", "b", "c")
PARTITIONS = [
    (("a",), ("b",), ("c",)),
    (("a", "c"), ("b",)),
    (("a",), ("b", "c")),
]


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Move every parameter: zero-initialised gammas and tiny layer scales hide a wrong split."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.mul_(0.9).add_(noise * (0.05 if parameter.ndim > 1 else 0.1))


def random_split(names: Sequence[str], seed: int = 0, share: float = 0.3) -> Split:
    """Split about a `share` of the layers, each into random groups of three tasks."""
    draw = random.Random(seed)
    chosen = [name for name in names if draw.random() < share] or [names[0]]
    return Split(TASKS, {name: draw.choice(PARTITIONS) for name in chosen})


def silence(module: nn.Module) -> None:
    """Set every drop rate to zero, so that two runs in training mode are comparable."""
    for part in module.modules():
        for name in ("p", "drop_prob", "drop_rate", "attn_drop_rate"):
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, 0.0)


def check_paths(network: BranchedBackbone, x: Tensor, tolerance: float = 1e-9) -> None:
    """Each path equals the plain model with its weights: outputs, gradients, updated buffers.

    A shared parameter's gradient must be the sum over the plain models of the tasks that share it.
    """
    plain = {task: network.single(task) for task in network.tasks}
    own = {parameter.data_ptr(): parameter for parameter in network.parameters()}
    expected = {pointer: torch.zeros_like(p) for pointer, p in own.items()}
    network.zero_grad()
    outputs = network(x)
    assert tuple(outputs) == network.tasks
    found = {task: pytree.tree_leaves(output) for task, output in outputs.items()}
    weights = {task: [torch.randn_like(part) for part in parts] for task, parts in found.items()}
    loss = torch.stack([weighted(parts, weights[task]) for task, parts in found.items()]).sum()
    torch.autograd.backward(loss)
    for task, model in plain.items():
        state = network.task_state_dict(task)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        reference = pytree.tree_leaves(network.call_of(task).apply(model, x))
        assert len(found[task]) == len(reference)
        for part, expected_part in zip(found[task], reference, strict=True):
            assert_close(part, expected_part, tolerance, f"output of {task}")
        torch.autograd.backward(weighted(reference, weights[task]))
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                expected[state[name].data_ptr()] += parameter.grad
        for name, tensor in model.state_dict().items():
            if network.blueprint.layout.reads and torch.equal(tensor, before[name]):
                continue  # a task that reads something else may have moved it
            assert_close(state[name], tensor, tolerance, f"{name} of {task} afterwards")
    names = {parameter.data_ptr(): name for name, parameter in network.named_parameters()}
    for pointer, parameter in own.items():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert_close(gradient, expected[pointer], tolerance, f"gradient of {names[pointer]}")


def weighted(parts: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Return a loss that depends on every entry of every part."""
    return torch.stack([(w * p).sum() for w, p in zip(weights, parts, strict=True)]).sum()


def assert_close(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Compare relative to the largest expected entry; infinite entries must be equal."""
    if torch.equal(found, expected):
        return
    error = (found.double() - expected.double()).abs().max().item() if expected.numel() else 0.0
    scale = expected.double().abs().max().item() if expected.numel() else 0.0
    assert error <= tolerance * max(scale, 1e-3), f"{what}: off by {error:g} of {scale:g}"
