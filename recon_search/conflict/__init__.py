"""Where tasks' gradients conflict: Gramians, scores, and rules that rank layers."""
