"""What is learned: losses, metrics, delta_m."""
