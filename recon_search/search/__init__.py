"""What Optuna searches over and where it keeps it."""
