"""The training loop with checkpoints, divergence checks and evaluation; independent of methods and runs."""
