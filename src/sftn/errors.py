"""Errors that users can fix (one line on stderr, exit code 2), and the exceptions that end training early."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

_SURE = 0.9
"""Similarity from which the nearest name is suggested alone."""
LONGEST = 2000
"""Maximum length of a message in characters."""


class InputError(ValueError):
    """The user's input is wrong; the message names the problem and the remedy in one line.

    A name read from a file may contain line breaks or terminal control sequences, or be a megabyte long: unprintable
    characters are escaped, and the middle of a long message is cut out.
    """

    def __init__(self, message: str) -> None:
        if len(message) > LONGEST:
            message = f"{message[: LONGEST // 2]} … {message[-LONGEST // 2 :]}"
        super().__init__(printable(message))


class Stopped(BaseException):
    """Training was stopped by a signal and has saved its state; `signal` is the signal's number.

    Like KeyboardInterrupt, it is not an `Exception`: it can be raised anywhere, and code that catches every `Exception`
    because a file may be damaged in any way must not mistake it for damage.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal


class Diverged(FloatingPointError):
    """A value in training is not finite; `record` holds what is known about it, for diverged.json."""

    def __init__(self, what: str, record: Mapping[str, Any]) -> None:
        super().__init__(what)
        self.record = dict(record)

    def __reduce__(self) -> tuple[type[Diverged], tuple[str, dict[str, Any]]]:
        return Diverged, (str(self), self.record)


def printable(text: str) -> str:
    """Escape unprintable characters, so that a text is safe to print in a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """An `InputError` for a `name` that is not in `known`; the message suggests the nearest names."""
    known = sorted(known)
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    near = near[:1] if near and difflib.SequenceMatcher(None, name.lower(), near[0]).ratio() > _SURE else near
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(known)}"
    return InputError(f"unknown {kind} {name!r}: {hint}")
