"""Speed and size: throughput, limits, estimates, layers."""
