from __future__ import annotations

import torch

torch.set_num_threads(1)  # these networks are small; threads only wait for each other
