"""Student-friendly teachers: train a network so that a smaller one can learn from it, then distil it."""

__version__ = "0.1.0"
