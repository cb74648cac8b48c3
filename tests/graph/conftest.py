from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.graph.models import small_resnet

torch.set_num_threads(1)  # these networks are small; threads only wait for each other


@pytest.fixture
def backbone() -> nn.Module:
    return small_resnet()
