"""File formats and leases that withstand power cuts, concurrent processes and untrusted content."""
