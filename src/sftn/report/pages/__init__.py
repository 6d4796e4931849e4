"""One page for each kind of report."""
