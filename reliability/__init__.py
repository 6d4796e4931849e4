"""Scripts that demonstrate the promises of `docs/reliability.md`; `make reliability` runs them in full."""
