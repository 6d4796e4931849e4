"""The error that a person can mend, one line on stderr and exit code 2; and the end that a person asked for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

LONGEST = 2000
"""Characters of a message."""


class InputError(ValueError):
    """Something given from outside is wrong; the message names the thing and the remedy, in one line.

    A name out of a file may hold line breaks or a terminal's control sequences, or be a megabyte long: what cannot be
    printed is written as an escape, and the middle of a long message is left out.
    """

    def __init__(self, message: str) -> None:
        if len(message) > LONGEST:
            message = f"{message[: LONGEST // 2]} … {message[-LONGEST // 2 :]}"
        super().__init__(printable(message))


class Stopped(BaseException):
    """Training was asked to stop and has saved its state; `signal` is the number of what asked.

    No `Exception`, as KeyboardInterrupt is none: it may come in the middle of anything, and whoever expects that a file
    can be damaged in any way must not take it for that.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal


class Diverged(FloatingPointError):
    """A number of training is not finite; `record` has all that is known of it, for diverged.json."""

    def __init__(self, what: str, record: Mapping[str, Any]) -> None:
        super().__init__(what)
        self.record = dict(record)

    def __reduce__(self) -> tuple[type[Diverged], tuple[str, dict[str, Any]]]:
        return Diverged, (str(self), self.record)


def printable(text: str) -> str:
    """A text for a terminal: what cannot be printed is written as an escape."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """An `InputError` for a `name` that is not among the `known` ones, with the nearest names suggested."""
    known = sorted(known)
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(known)}"
    return InputError(f"unknown {kind} {name!r}: {hint}")
