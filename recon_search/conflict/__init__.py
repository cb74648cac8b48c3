"""Where tasks' gradients conflict: Gramians, the scores they add up to, and rules that rank layers."""
