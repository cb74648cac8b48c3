"""A network small enough to try every method on it, split, in double precision."""

import torch
from torch import nn

import recon_search as rs
from recon_search.model.network import MultiTaskModel

TASKS = ("a", "b", "c")
WIDTH = 6
SPLIT = {"2": (("a", "b"), ("c",)), "4": (("a",), ("b",), ("c",))}
"""Of the three layers of the backbone the second has two copies, the third three."""


class Necked(MultiTaskModel):
    """A model with parts outside backbone and heads, between the two."""

    def __init__(self, backbone, heads, necks):
        super().__init__(backbone, heads, {})
        self.necks = nn.ModuleDict(necks)

    def read(self, images):
        """What each head reads."""
        features = self.backbone(images)
        return {
            task: self.necks[task](value) if task in self.necks else value
            for task, value in features.items()
        }

    def forward(self, x, tasks=None):
        return {task: self.heads[task](value) for task, value in self.read(x).items()}


def make_backbone(split=True, tasks=TASKS):
    backbone = nn.Sequential(
        nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 8), nn.Tanh(), nn.Linear(8, WIDTH), nn.Tanh()
    )
    layers = {
        layer: [kept for group in groups if (kept := [t for t in group if t in tasks])]
        for layer, groups in (SPLIT if split is True else split or {}).items()
    }
    return rs.branch(backbone, rs.Split(tasks, layers), example=torch.randn(2, 5))


def make_heads(tasks=TASKS):
    return {t: nn.Sequential(nn.Linear(WIDTH, 4), nn.Tanh(), nn.Linear(4, 3)) for t in tasks}


def make_small(split=True, tasks=TASKS, heads=None, necks=None, seed=0):
    """Build a model; copies start apart. A mapping splits otherwise than `SPLIT`."""
    torch.manual_seed(seed)
    backbone = make_backbone(split, tasks)
    model = Necked(backbone, make_heads(tasks) if heads is None else heads, necks or {}).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def batch(model, seed=0, size=8):
    generator = torch.Generator().manual_seed(seed)
    like = next(model.parameters())
    images = torch.randn(size, 5, generator=generator, dtype=torch.float64).to(like.dtype)
    targets = {
        task: 2.0**index * torch.randn(size, 3, generator=generator, dtype=torch.float64)
        for index, task in enumerate(model.tasks)
    }
    return images, {task: target.to(like.dtype) for task, target in targets.items()}


def losses_of(model, seed=0):
    """Mean squared errors, each of another size."""
    images, targets = batch(model, seed)
    outputs = model(images)
    return {task: (output - targets[task]).square().mean() for task, output in outputs.items()}


def gradients_of(model):
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def rows_of(model, losses):
    """By plain autograd: every task's gradient of the parameters that its loss reaches."""
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    rows = {}
    for task, loss in losses.items():
        found = torch.autograd.grad(loss, parameters.values(), retain_graph=True, allow_unused=True)
        rows[task] = {n: g for n, g in zip(parameters, found, strict=True) if g is not None}
    return rows


def combined(model, losses, aggregators):
    """What a method should give: what equal tasks reach is combined as one matrix.

    Args:
        model: whose order of parameters the matrix has; no aggregator here looks at it.
        losses: by task.
        aggregators: one for each set of several tasks, made by calling this.
    """
    rows = rows_of(model, losses)
    sets = {}
    for name, _ in model.named_parameters():
        users = tuple(task for task in losses if name in rows[task])
        if users:
            sets.setdefault(users, []).append(name)
    expected = {}
    for users in sorted(sets, key=lambda users: (-len(users), users)):
        names = sets[users]
        jacobian = torch.stack([torch.cat([rows[t][n].flatten() for n in names]) for t in users])
        vector = aggregators()(jacobian) if len(users) > 1 else jacobian[0]
        sizes = [rows[users[0]][name].numel() for name in names]
        for name, piece in zip(names, vector.split(sizes), strict=True):
            expected[name] = piece.view_as(rows[users[0]][name])
    return expected
