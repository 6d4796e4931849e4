"""Files that survive power cuts, rival processes and strangers."""
