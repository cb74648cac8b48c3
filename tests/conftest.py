"""One thread a test process: small tensors gain nothing from more, and a busy machine loses."""

import torch

torch.set_num_threads(1)
