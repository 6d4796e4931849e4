"""The same networks, computed faster on the same weights."""
