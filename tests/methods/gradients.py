"""Losses and gradients to compare with, by plain autograd."""

import torch
import torch.nn.functional as F

SPLIT = ["layer2.0.conv1", "layer3.1.bn2", "fc"]
"""Layers of `make_model` that are split: a convolution, a norm, the last one."""


def randomise(model):
    """Randomised weights: zero-initialised norms would make most gradients zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.2 * noise)
    return model


def forward(model, seed=0, size=8, side=32):
    """Losses and features of a random batch."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 1, side, side, generator=generator, dtype=torch.float64)
    features = model.backbone(images)
    targets = {task: torch.randint(5, (size,), generator=generator) for task in model.tasks}
    losses = {
        task: F.cross_entropy(model.heads[task](features[task]), targets[task])
        for task in model.tasks
    }
    return losses, features


def losses_of(model, seed=0):
    return forward(model, seed)[0]


def task_gradients(model, losses):
    """Every task's gradient of every parameter; zeros where the loss does not reach."""
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    rows = []
    for loss in losses.values():
        found = torch.autograd.grad(loss, parameters.values(), retain_graph=True, allow_unused=True)
        rows.append(
            {
                name: torch.zeros_like(parameters[name]) if gradient is None else gradient
                for name, gradient in zip(parameters, found, strict=True)
            }
        )
    return rows


def shared_names(model, users=None):
    """Names of the backbone's parameters that exactly these tasks share, all tasks if None."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [
        names[id(parameter)]
        for blocks in model.backbone.layers().values()
        for block in blocks
        if block.tasks == (users or model.tasks)
        for parameter in block.parameters
        if parameter.requires_grad
    ]


def flat(named, names):
    return torch.cat([named[name].flatten() for name in names])


def gradients_of(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
