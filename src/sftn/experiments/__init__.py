"""Many runs: planned as tables, worked off, collected and compared."""
