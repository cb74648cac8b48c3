"""Tasks, models, gradient weightings, checkpoints and the one training loop."""
