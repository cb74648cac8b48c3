"""Damaged, changed and hostile files: one line each, and nothing else."""
