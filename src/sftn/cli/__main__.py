"""Run `sftn` as `python -m sftn.cli`."""

from sftn.cli import main

main()
