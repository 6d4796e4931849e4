"""Reads untrusted records: text of bounded size, and JSON values checked against the types of a dataclass."""

from __future__ import annotations

import hashlib
import json
import math
import types
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from sftn.errors import InputError

LARGEST = 16 * 2**20
"""Largest record or log, in bytes; parsed, JSON may take 25 times as much memory. A run's log has 0.1 million bytes."""
DEEPEST = 16
"""Deepest nesting of records, such as a student's teacher's teacher or its objective's terms."""
_Record = TypeVar("_Record")


def read_text(path: Path, largest: int = LARGEST) -> str:
    """Read a UTF-8 text file.

    Raises:
        InputError: the file is missing, unreadable, larger than `largest` bytes, not text, or a pipe or device that
            reading would wait for.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is not a regular file: remove it")
        with open(path, "rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; is it a run's folder?") from error
    if len(content) > largest:
        raise InputError(f"{path} is larger than {largest >> 20} MiB, so no run wrote it: remove it")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text ({error.reason}): remove it, or copy it again") from error


def digest(record: Mapping[str, Any]) -> str:
    """A SHA-256 hash of a JSON object's content, in hexadecimal digits; the order of its keys does not matter."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def decode(kind: type[_Record], record: Any, depth: int = 0) -> _Record:
    """Build a dataclass from a JSON object, checking every value against the type of its field.

    Raises:
        TypeError, ValueError: a field is missing, unknown or of another type, or records are nested too deeply.
    """
    if not isinstance(record, Mapping) or depth > DEEPEST:
        raise ValueError(f"not a record of a {kind.__name__.lower()}")
    hints = get_type_hints(kind)
    if strange := next((name for name in record if name not in hints), None):
        raise ValueError(f"{str(strange)[:40]} is not a field of a {kind.__name__.lower()}")
    return kind(**{name: decode_value(value, hints[name], depth + 1) for name, value in record.items()})


def decode_value(value: Any, hint: Any, depth: int = 0) -> Any:
    """Convert a JSON value to a type: lists become tuples, objects dataclasses; numbers are finite and below 2⁶³.

    Raises:
        TypeError, ValueError: the value is of another type.
    """
    origin, inside = get_origin(hint), get_args(hint)
    if is_dataclass(hint) and isinstance(hint, type):
        return decode(hint, value, depth)
    if origin in (Union, types.UnionType):
        return _either(value, inside, depth)
    if origin is tuple and isinstance(value, list):
        each = inside[:1] * len(value) if inside[-1] is ... else inside
        return tuple(decode_value(item, one, depth) for item, one in zip(value, each, strict=True))
    if origin is not None and origin is not Literal and origin is not tuple and isinstance(value, dict):
        return {name: decode_value(item, inside[1], depth) for name, item in value.items()}
    if origin is Literal and value in inside:
        return value
    if hint is str and isinstance(value, str) and len(value) <= 4096 and value.isprintable():
        return value
    if hint in (int, float) and type(value) in (int, hint) and abs(value) < 2**63 and math.isfinite(value):
        return value
    if hint in (bool, type(None)) and type(value) is hint:
        return value
    raise ValueError(f"{str(value)[:40]!r} instead of {getattr(hint, '__name__', hint)}")


def _either(value: Any, kinds: tuple[Any, ...], depth: int) -> Any:
    reasons = []
    for kind in kinds:
        try:
            return decode_value(value, kind, depth)
        except (TypeError, ValueError) as error:
            reasons.append(error)
    raise reasons[0]
