"""From the tasks' losses to gradients."""
