"""Faster computation of the same networks with the same weights."""
