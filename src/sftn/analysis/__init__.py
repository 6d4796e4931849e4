"""What is said of trained networks beyond their accuracy: robustness, transfer, likeness, confidence, curves.

One file an analysis, each a function of networks and images; `commands.py` is what `sftn analyse` does with them.
"""
