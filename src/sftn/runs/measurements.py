"""Reads and writes the measurements of a run, which are stored in its folder as `analysis-NAME.json`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftn.errors import InputError
from sftn.runs.folder import Entry, RunFolder
from sftn.spec.run import Run
from sftn.storage.json_files import read_json, write_json
from sftn.storage.records import decode_value, digest

FORMAT = 1
"""Format version of `analysis-NAME.json`."""
_NAME = re.compile(r"[\w.+-]+", re.ASCII)


@dataclass(frozen=True)
class Reading:
    """The numbers of one measurement of one run."""

    settings: Mapping[str, Any]
    """How it was measured; numbers measured with different settings are not comparable."""
    numbers: Mapping[str, float | None]
    """The numbers by name; None where one is not defined."""
    details: Mapping[str, Any]
    """Further values that figures need."""


def path(folder: RunFolder, name: str) -> Path:
    """The file of a measurement.

    Raises:
        ValueError: the name has characters that no measurement's name has.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name} is not a valid name of a measurement")
    return folder.path / f"analysis-{name}.json"


def names(folder: RunFolder) -> list[str]:
    """The names of a run's measurements, sorted."""
    found = (file.stem.removeprefix("analysis-") for file in folder.path.glob("analysis-*.json"))
    return sorted(filter(_NAME.fullmatch, found))


def read(entry: Entry, name: str) -> Reading | None:
    """Read a measurement of a finished run; None if there is none.

    Args:
        entry: the run.
        name: name of the measurement.

    Raises:
        InputError: the file belongs to another run, other weights or another format, or was edited.
    """
    file = path(entry.folder, name)
    if not file.exists():
        return None
    record = read_json(file)
    seal = record.pop("sha256", None)
    if seal != digest(record) or any(record.get(key) != value for key, value in _about(entry, name).items()):
        raise InputError(f"{file} is of another run, or was edited: remove it to measure again")
    try:
        reading = Reading(
            record["settings"], decode_value(record["numbers"], Mapping[str, float | None]), record["details"]
        )
        _check(reading.settings)
        decode_value(reading.details.get("accuracy", {}), Mapping[str, tuple[float, ...]])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{file} has a missing or invalid value ({error}): remove it to measure again") from error
    return reading


def write(entry: Entry, name: str, reading: Reading) -> None:
    """Write a measurement of a finished run atomically.

    Raises:
        InputError: the folder cannot be written.
    """
    # JSON has no NaN: it becomes null.
    numbers = {key: None if value is None or value != value else value for key, value in reading.numbers.items()}
    record = _about(entry, name) | {
        "settings": dict(reading.settings),
        "numbers": numbers,
        "details": dict(reading.details),
    }
    write_json(path(entry.folder, name), record | {"sha256": digest(record)})


def _check(settings: Mapping[str, Any]) -> None:
    """Check that settings, if there are any, have the types that their readers expect."""
    if settings:
        decode_value([settings["test_images"], settings["of"]], tuple[int, int])
        decode_value(settings.get("corruptions") or [], tuple[str, ...])
        decode_value(settings.get("probe", {"epochs": 0})["epochs"], int)


def _about(entry: Entry, name: str) -> dict[str, Any]:
    if entry.run is None:
        raise InputError(entry.reason)
    run = entry.run
    teachers = [one.id if isinstance(one, Run) else one.sha256 for one in run.teachers]
    return {
        "format": FORMAT,
        "analysis": name,
        "id": run.id,
        "teacher": teachers[0] if teachers else None,
        **({"further": teachers[1:]} if run.further else {}),
        "data": run.data.fingerprint,
        "weights_sha256": (entry.result or {}).get("weights_sha256"),
    }
