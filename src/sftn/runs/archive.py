"""Archive of finished runs beside the code: one JSON file per run without its weights, and folders of a few with them.

A file holds the run's record, result, log (one list per column) and measurements, all unchanged, and a digest. Code
that reads runs gets a temporary folder into which every file is unpacked, so it reads archived runs like any others;
only their weights are missing.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sftn.errors import InputError
from sftn.runs import measurements
from sftn.runs.folder import DONE, Entry, RunFolder, scan
from sftn.spec.run import Run
from sftn.storage.atomic import make_folder, write_atomically
from sftn.storage.faults import writing
from sftn.storage.json_files import read_json, sha256
from sftn.storage.records import digest

FORMAT = 1
"""Format version of an archived run."""
NETWORKS = "networks"
"""Folder, among the archived runs, that holds the runs kept with their weights."""
LARGEST = 5 * 2**20
"""Largest weights file that is kept, in bytes: a repository is no place for more."""
_NAME = re.compile(r"[\w.+-]+-s\d+-[0-9a-f]{12}", re.ASCII)


def keep(entry: Entry, to: Path, study: str) -> tuple[Path, bool]:
    """Archive a finished run in the folder of a study, or where it is archived already.

    Args:
        entry: the run.
        to: the folder of all archived runs.
        study: name of the subfolder for new runs.

    Returns:
        The file, and whether it was written: a file with the same content is left alone.

    Raises:
        InputError: the run is not done, one of its files was edited, or the file cannot be written.
    """
    name = f"{_finished(entry).folder}.json"
    path = next(iter(sorted(to.glob(f"*/{name}"))), to / study / name)
    content = _text(_packed(entry))
    if path.exists() and path.read_bytes() == content:
        return path, False
    make_folder(path.parent, "--to")
    write_atomically(path, content)
    return path, True


def keep_network(entry: Entry, to: Path) -> Path:
    """Archive the folder of a finished run together with its weights.

    Raises:
        InputError: the run is not done, its weights are too large or do not match its result, or the folder cannot be
            written.
    """
    run, weights = _finished(entry), entry.folder.weights
    if not weights.is_file() or sha256(weights) != (entry.result or {}).get("weights_sha256"):
        raise InputError(f"{weights} is not the file that the result was measured on: train the run again")
    if weights.stat().st_size > LARGEST:
        raise InputError(f"{weights} is larger than {LARGEST >> 20} MiB: keep it elsewhere")
    folder = to / NETWORKS / run.folder
    make_folder(folder, "--to")
    for path in (entry.folder.run_json, entry.folder.log, weights, entry.folder.result_json):
        with writing(folder / path.name):
            shutil.copyfile(path, folder / path.name)
    return folder


@contextmanager
def unpacked(out: Path) -> Iterator[Path]:
    """A folder of runs to read from: `out` itself, or a temporary folder with the archived runs of `out` unpacked.

    Raises:
        InputError: an archived run was edited or is not one.
    """
    kept = [path for path in (*out.glob("*.json"), *out.glob("*/*.json")) if _NAME.fullmatch(path.stem)]
    if not kept:
        yield out
        return
    with TemporaryDirectory(prefix="sftn-") as name:
        for path in kept:
            folder = Path(name) / path.stem
            folder.mkdir(exist_ok=True)
            for file, content in unpack(path).items():
                (folder / file).write_text(content, encoding="utf-8")
        for entry in scan(out):  # ordinary runs beside the archived ones
            shutil.rmtree(Path(name) / entry.folder.name, ignore_errors=True)
            (Path(name) / entry.folder.name).symlink_to(entry.folder.path.resolve())
        yield Path(name)


def _finished(entry: Entry) -> Run:
    if entry.state != DONE or entry.run is None:
        raise InputError(entry.reason or f"{entry.folder.name} is {entry.state}: only finished runs are kept")
    return entry.run


def _packed(entry: Entry) -> dict[str, Any]:
    """The whole content of a run's folder, except the weights, as one record."""
    names = measurements.names(entry.folder)
    for name in names:
        measurements.read(entry, name)  # refuses edited files
    rows = entry.folder.history()
    columns = dict.fromkeys(key for row in rows for key in row)
    record = {
        "format": FORMAT,
        "run": read_json(entry.folder.run_json),
        "result": entry.result,
        "log": {key: [row.get(key) for row in rows] for key in columns},
        "measured": {name: read_json(measurements.path(entry.folder, name)) for name in names},
    }
    return record | {"sha256": digest(record)}


def _text(record: Mapping[str, Any]) -> bytes:
    """One line per part and per column of the log, so that a diff shows where a change is."""
    lines = []
    for key, value in record.items():
        shown = json.dumps(value)
        if key == "log":
            shown = "{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(one)}" for name, one in value.items()) + "\n}"
        lines.append(f"{json.dumps(key)}: {shown}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def unpack(path: Path) -> dict[str, str]:
    """The files of an archived run's folder, by name, without its weights.

    Only the digest is checked here: the code that reads these files checks the rest.

    Raises:
        InputError: the file is not an archived run, or was edited.
    """
    record = read_json(path)
    seal = record.pop("sha256", None)
    try:
        if seal != digest(record) or record["format"] != FORMAT or record["run"]["id"] != path.stem[-12:]:
            raise ValueError("wrong digest, format or name")
        measured, at = record["measured"].items(), RunFolder(Path())
        found = {measurements.path(at, name).name: json.dumps(reading) for name, reading in measured}
        found |= {at.run_json.name: json.dumps(record["run"]), at.result_json.name: json.dumps(record["result"])}
        log = "".join(json.dumps(row) + "\n" for row in _rows(record["log"]))
        return found | {at.log.name: log, at.archived.name: ""}
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a kept run, or was edited ({error}): restore the original file") from error


def _rows(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """The rows of a log; null stands for a number that an epoch does not have."""
    cells = zip(*columns.values(), strict=True)
    return [{key: value for key, value in zip(columns, row) if value is not None} for row in cells]
