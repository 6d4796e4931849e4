"""A reader of the package as the scripts see it: how it is called, a valid file, and how to make bad ones."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reliability import hostile

Bad = Iterator[tuple[str, bytes]]


def none(canary: Path) -> Bad:
    """No handmade inputs."""
    return iter(())


def same(content: bytes) -> bytes:
    """Nothing wraps it."""
    return content


@dataclass(frozen=True)
class Reader:
    """A reader and what is given to it."""

    name: str
    file: str
    """Where the file under test lies, within the folder given."""
    valid: Callable[[], bytes]
    read: Callable[[Path], object]
    """Given the folder."""
    handmade: Callable[[Path], Bad] = none
    """Handmade contents; given a file that must never come to be."""
    beside: Callable[[Path], None] = lambda folder: None
    """Writes what else the folder needs."""
    wrap: Callable[[bytes], bytes] = same
    """What is damaged is inside of this: an archive, a record with its seal."""
    damage: Callable[..., bytes] = hostile.damaged
    small: bool = True
    """Whether its handmade inputs are quickly made."""


MISSING: list[str] = []
"""Readers that are left out, and why."""


def needing(libraries: tuple[str, ...], *readers: Reader) -> tuple[Reader, ...]:
    """Readers, or none where a library of theirs is not installed."""
    lacking = [name for name in libraries if importlib.util.find_spec(name) is None]
    if lacking:
        MISSING.extend(f"{reader.name}: {' and '.join(lacking)} not installed" for reader in readers)
    return () if lacking else readers
