"""Runs: building them, carrying them out, and reading what they leave in their folders."""
