"""The error that a person can mend, one line on stderr and exit code 2; and the end that a person asked for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something given from outside is wrong; the message names the thing and the remedy, in one line."""


class Stopped(Exception):
    """Training was asked to stop and has saved its state; `signal` is the number of what asked."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """An `InputError` for a `name` that is not among the `known` ones, with the nearest names suggested."""
    known = sorted(known)
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(known)}"
    return InputError(f"unknown {kind} {name!r}: {hint}")
