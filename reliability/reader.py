"""The scripts' description of a reader of files: how to call it, a valid file, and how to make bad ones."""

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
    """A reader and its inputs."""

    name: str
    file: str
    """Path of the file under test within the given folder."""
    valid: Callable[[], bytes]
    read: Callable[[Path], object]
    """Called with the folder."""
    handmade: Callable[[Path], Bad] = none
    """Makes handmade contents; called with a path that must never be created."""
    beside: Callable[[Path], None] = lambda folder: None
    """Writes the other files that the folder needs."""
    wrap: Callable[[bytes], bytes] = same
    """Wraps damaged contents: in an archive, or in a record with its digest."""
    damage: Callable[..., bytes] = hostile.damaged
    small: bool = True
    """Whether its handmade inputs are quick to make."""


MISSING: list[str] = []
"""Readers that are left out, and why."""


def needing(libraries: tuple[str, ...], *readers: Reader) -> tuple[Reader, ...]:
    """Make the readers, or none if a library that they need is not installed."""
    lacking = [name for name in libraries if importlib.util.find_spec(name) is None]
    if lacking:
        MISSING.extend(f"{reader.name}: {' and '.join(lacking)} not installed" for reader in readers)
    return () if lacking else readers
