"""What the commands do; `sftn.cli` only reads their options."""
