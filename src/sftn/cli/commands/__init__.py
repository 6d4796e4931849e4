"""The functions that run the commands; imported by `sftn.cli` on demand."""
