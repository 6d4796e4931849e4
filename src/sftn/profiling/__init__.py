"""Speed and size of networks and training: throughput, roofline, time estimates and layer tables."""
