"""Multi-task data sets that live on the device as tensors."""
