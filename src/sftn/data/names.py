"""Errors about names of data sets; without torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sftn.errors import InputError, unknown

WITH_PATH = {"folder": "folder:PATH", "hf": "hf:NAME"}
"""Sources whose names go on after a colon."""


def unknown_data(text: str, known: Iterable[str]) -> InputError:
    """The error for a data set that is not known; a folder of that name, or images given from Python, explain it.

    Args:
        text: what was given.
        known: the names of all sources.
    """
    key = text.partition(":")[0]
    if key == "own":
        return InputError(f"the images {text} were given from Python: go on with this run from there")
    if text and Path(text).expanduser().is_dir():
        return InputError(f"unknown data set {text!r}: for the images of this folder, give folder:{text}")
    return unknown("data set", key, [WITH_PATH.get(name, name) for name in known])
