"""Optimisers: batched over tensors where that changes no bit."""

from __future__ import annotations

import pytest
import timm
import torch

from recon_search.recipe import TrainConfig
from recon_search.training.optimisation import BATCHED, create_optimizer

NAMES = ("sgd", "momentum", "adam", "adamw", "adamax", "adagrad", "adadelta", "rmsprop")


def trained(name: str, *, batched: bool) -> tuple[type, torch.Tensor]:
    """Parameters after eight steps along random gradients of very different lengths."""
    torch.manual_seed(0)
    model = timm.create_model("resnet18", channels=[4, 8, 8, 8], num_classes=10, in_chans=1)
    config = TrainConfig(epochs=1, batch_size=1, optimizer=name, lr=0.003, weight_decay=0.01)
    optimizer = create_optimizer(model, config)
    assert all(group["foreach"] for group in optimizer.param_groups)
    for group in optimizer.param_groups:
        group["foreach"] = batched
    generator = torch.Generator().manual_seed(1)
    for _ in range(8):
        for parameter in model.parameters():
            length = 10 ** float(torch.randn(1, generator=generator))
            parameter.grad = length * torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return type(optimizer), torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("name", NAMES)
def test_a_batched_optimiser_makes_the_same_steps_bit_for_bit(name):
    kind, found = trained(name, batched=True)
    assert kind in BATCHED
    assert torch.equal(found, trained(name, batched=False)[1])


def test_every_batched_optimiser_is_tried():
    assert {trained(name, batched=True)[0] for name in NAMES} == BATCHED
