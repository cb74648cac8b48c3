"""A training loop of one's own: conflicts measured on the way, layers split, trained on.

    python own_loop.py

Two tasks on scikit-learn's digits share a small ResNet: which digit it is, and how much ink it
took. The first training measures in which layers they conflict; the network is then branched
there, and a second one trained from its first weights. `recon_search` gives `branch`, `Split`,
`MultiTaskModel`, `create_surgeon` and `ConflictScores`; data, losses, optimiser, schedule and
devices are yours. An example of the calls, not of what splitting is worth.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import timm
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

import recon_search as rs

TASKS = ("digit", "ink")
Batch = tuple[Tensor, dict[str, Tensor]]


def load(n_train: int = 1200) -> tuple[Batch, Batch]:
    """Return what is trained on and what is tested on: images (N, 1, 32, 32), and targets."""
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float()[:, None] / 16
    ink = images.mean((1, 2, 3))
    targets = {"digit": torch.from_numpy(bunch.target), "ink": (ink - ink.mean()) / ink.std()}
    images = functional.interpolate(images, size=(32, 32), mode="bilinear")
    order = torch.randperm(len(images), generator=_seeded(0))
    parts = [
        (images[rows], {task: target[rows] for task, target in targets.items()})
        for rows in (order[:n_train], order[n_train:])
    ]
    return parts[0], parts[1]


def build() -> rs.MultiTaskModel:
    """Return the network with nothing split: any module with `backbone`, `heads`, `tasks` will do.

    A branched backbone computes bit for bit what timm's own does.
    """
    torch.manual_seed(0)
    backbone = timm.create_model("resnet18", in_chans=1, channels=[4, 4, 8, 8], num_classes=0)
    heads = {
        task: nn.Linear(backbone.num_features, width)
        for task, width in zip(TASKS, (10, 1), strict=True)
    }
    return rs.MultiTaskModel(rs.branch(backbone, rs.Split(TASKS, {})), heads, {})


def losses_of(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a scalar a task; a task without a label in the batch may be left out."""
    return {
        "digit": functional.cross_entropy(outputs["digit"], targets["digit"]),
        "ink": functional.mse_loss(outputs["ink"][:, 0], targets["ink"]),
    }


def train(
    model: rs.MultiTaskModel, data: Batch, *, epochs: int, method: str = "joint", every: int = 4
) -> rs.ConflictScores:
    """Train by a method of `recon-search ls methods`, and measure at every n-th step."""
    surgeon = rs.create_surgeon(model, method)
    optimizer = torch.optim.AdamW([*model.parameters(), *surgeon.parameters()], lr=0.003)
    scores = rs.ConflictScores(list(model.backbone.layers()), TASKS)
    model.train()
    for step, (images, targets) in enumerate(batches(data, epochs)):
        optimizer.zero_grad()
        losses = losses_of(model(images), targets)
        gramians = surgeon.backward(
            losses, measure=step % every == 0
        )  # in place of loss.backward()
        optimizer.step()
        surgeon.step()
        if gramians is not None:
            scores.update(gramians)  # (L, T, T)
    surgeon.finish(model)
    return scores


@torch.no_grad()
def test(model: rs.MultiTaskModel, data: Batch) -> dict[str, float]:
    """Return the accuracy of the digits in percent, and the error of the ink in deviations."""
    images, targets = data
    outputs = model.eval()(images)
    right = outputs["digit"].argmax(1) == targets["digit"]
    error = (outputs["ink"][:, 0] - targets["ink"]).abs()
    return {"digit": 100 * right.float().mean().item(), "ink": error.mean().item()}


def batches(data: Batch, epochs: int, size: int = 64) -> Iterator[Batch]:
    """Yield batches in a new order each epoch."""
    images, targets = data
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=_seeded(epoch))
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            yield images[rows], {task: target[rows] for task, target in targets.items()}


def main(epochs: int = 8, k: int = 3) -> tuple[rs.MultiTaskModel, rs.MultiTaskModel]:
    """Train, measure, split the k layers of most conflict, and train that; returns both."""
    data, held_out = load()
    first = build()
    plain = copy.deepcopy(first)  # as it was before training
    scores = train(first, data, epochs=epochs)
    split = rs.Split.private(scores.rank(threshold=-0.05)[:k], TASKS)
    second = rs.MultiTaskModel(rs.branch(plain.backbone, split), dict(plain.heads.items()), {})
    train(second, data, epochs=epochs, method="pcgrad")
    print(f"{scores.steps} measured steps; split: {', '.join(split.layers)}")
    for name, model in (("joint", first), ("split, PCGrad", second)):
        found = test(model, held_out)
        print(f"{name}: digits {found['digit']:.1f} %, ink off by {found['ink']:.3f} deviations")
    weights = second.backbone.task_state_dict("digit")  # loads into timm's resnet18, strict
    print(f"The backbone of 'digit' alone: {len(weights)} tensors that plain timm loads")
    return first, second


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


if __name__ == "__main__":
    main()
