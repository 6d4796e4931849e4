"""Scripts that show what `docs/reliability.md` promises: `make reliability` runs their full forms."""
