"""Analyses of trained networks beyond accuracy: robustness, transfer, similarity, confidence, training curves.

One file per analysis, each a function of networks and images; `sftn.cli.commands.analyse` runs them.
"""
