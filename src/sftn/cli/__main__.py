"""`python -m sftn.cli` is `sftn`."""

from sftn.cli import main

main()
