"""Experiments of many runs: planned as tables, trained, measured, collected and compared."""
