"""A run: built, carried out, left in its folder and found there again."""
