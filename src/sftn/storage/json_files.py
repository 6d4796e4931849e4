"""JSON files: written atomically and read with a bounded size; and hashes of files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sftn.errors import InputError
from sftn.storage import records
from sftn.storage.atomic import write_atomically
from sftn.storage.faults import file_error


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as indented JSON, atomically."""
    write_atomically(path, (json.dumps(record, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        InputError: the file is missing, larger than `sftn.storage.records.LARGEST` or not a JSON object.
    """
    text = records.read_text(path)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}): remove it, or copy it again") from error
    if not isinstance(record, dict):
        raise InputError(f"{path} is not a record of a run: remove it, or copy it again")
    return record


def sha256(path: Path) -> str:
    """The SHA-256 hash of a file's bytes, in hexadecimal digits.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise file_error("read", path, error) from error
