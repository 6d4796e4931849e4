"""The one loop, and what keeps it safe; it knows no method and no run."""
