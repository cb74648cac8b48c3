"""A small real network and its input, for tests that run it often."""

from __future__ import annotations

import timm
import torch
from torch import nn

from tests.graph.laws import randomise


def small_resnet() -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", channels=(8, 8, 16, 16), num_classes=0).double()
    model.default_cfg = {**model.default_cfg, "input_size": (3, 32, 32)}
    randomise(model)
    return model


def images(size: int = 32, batch: int = 4) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 3, size, size, dtype=torch.float64)
