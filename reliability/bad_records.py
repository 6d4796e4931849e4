"""Records in the folders of runs: valid and hostile ones."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reliability import hostile
from reliability.reader import Bad, Reader
from sftn.analysis import curves
from sftn.cli.commands.runs import show, table
from sftn.cli.console import console
from sftn.errors import InputError
from sftn.runs import archive, measurements
from sftn.runs.folder import BROKEN, DONE, Entry, RunFolder
from sftn.spec.run import FORMAT, Data, Run
from sftn.spec.schedule import Schedule
from sftn.storage import lease


def run_of(**changes: Any) -> Run:
    """Make a run with arbitrary values in some of its fields."""
    data = Data("digits", "0" * 16)
    return Run(
        **{"network": "resnet8", "data": data, "seed": 0, "schedule": Schedule(), "precision": "float32", **changes}
    )


def record_of(run: Run) -> bytes:
    """Make the run.json of a run, with the matching id."""
    return json.dumps({"format": FORMAT, "id": run.id, **asdict(run)}).encode()


def _result() -> bytes:
    numbers = {"accuracy": 50.0, "best_accuracy": 51.0, "seconds": 3.0, "parameters": 9, "weights_sha256": "0" * 64}
    more = {"test": {"accuracy": 50.0}, "train": {"nll": 1.0}, "environment": {"device": "cpu", "threads": 2}}
    return json.dumps({"format": FORMAT, "id": run_of().id, **numbers, **more}).encode()


def _row() -> dict[str, Any]:
    return {"phase": "train", "epoch": 1, "loss": 1.0, "kd": 0.5, "test_accuracy": 30.0, "seconds": 1.0}


def _sealed(content: bytes) -> bytes:
    """Add the digest of the file, which a forger can compute as well."""
    try:
        record = json.loads(content)
        record.pop("sha256", None)
        digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
        return json.dumps({**record, "sha256": digest}).encode()
    except (ValueError, AttributeError, RecursionError):
        return content


def _reading() -> bytes:
    numbers = {"settings": {"test_images": 9, "of": 9}, "numbers": {"0": 1.0}, "details": {"accuracy": {"fog": [1.0]}}}
    return _sealed(json.dumps(measurements._about(_done(Path()), "corruption") | numbers).encode())


def _kept_run() -> bytes:
    """Make a file as `sftn runs keep` writes it."""
    about = {"run": json.loads(record_of(run_of())), "result": json.loads(_result()), "log": {"epoch": [1, 2]}}
    return _sealed(json.dumps({"format": archive.FORMAT, **about, "measured": {"corruption": {}}}).encode())


def _beside_run(folder: Path) -> None:
    for name, content in {
        "run.json": record_of(run_of()),
        "result.json": _result(),
        "weights.safetensors": b"x",
    }.items():
        if not (folder / name).exists():
            (folder / name).write_bytes(content)


def _beside_unfinished(folder: Path) -> None:
    (folder / "run.json").write_bytes(record_of(run_of()))


def _show(folder: Path) -> None:
    """List and show it as the commands do; broken runs are refused."""
    entry = RunFolder(folder).inspect()
    with console.capture():
        table([entry])
        show(entry)
    if entry.state == BROKEN:
        raise InputError(entry.reason)


def _logs(folder: Path) -> None:
    RunFolder(folder).history()
    curves.curve(RunFolder(folder))


def _records(canary: Path) -> Bad:
    """Records whose ids match their content."""
    yield from hostile.texts()
    deep = run_of()
    for _ in range(40):
        deep = run_of(teacher=deep)
    yield "teachers 40 deep", record_of(deep)
    forged: list[dict[str, Any]] = [{"seed": s} for s in (1e308, "0", 10**30, None, [0])]
    forged += [{"network": n} for n in ("../../x", "[/x]", "\x1b[2J\n", 3, None, "x" * 10**6)]
    strange: tuple[Any, ...] = (3, None, "[/x]", "\n", {"a": 1}, [])
    forged += [{"data": Data(value, "0" * 16)} for value in strange] + [{"data": Data("digits", f)} for f in strange]
    forged += [{"alignment": a} for a in ((1, 2), ((1,),), "ab", ((0, 1e99),))]
    counts: tuple[Any, ...] = (10**400, 1.5)
    forged += [{"schedule": Schedule(epochs=n)} for n in counts] + [{"schedule": {}}, {"objective": 3}]
    for number, changes in enumerate(forged):
        try:
            yield f"forged {next(iter(changes))} {number}", record_of(run_of(**changes))
        except (TypeError, ValueError, AttributeError):
            continue  # a value that cannot even be encoded


def _lease(folder: Path) -> None:
    _show(folder)
    lease.holder(folder)


def _texts(canary: Path) -> Bad:
    return hostile.texts()


def _done(folder: Path) -> Entry:
    return Entry(RunFolder(folder), DONE, run_of(), {"weights_sha256": "0"})


def _measured(folder: Path) -> None:
    measurements.read(_done(folder), "corruption")


def _whole_run() -> bytes:
    return record_of(run_of())


def _divergence() -> bytes:
    terms = {"kd": "nan", "gradient norm": 3.0}
    return json.dumps({"phase": "train", "epoch": 2, "step": 3, "lr": 0.1, "terms": terms, "images": [1, 2]}).encode()


def _log() -> bytes:
    return (json.dumps(_row()) + "\n").encode() * 3


def _one_row() -> bytes:
    return json.dumps(_row()).encode()


def _owner() -> bytes:
    return json.dumps(asdict(lease.Owner.here(9.0))).encode()


_VALUE = hostile.damaged_json
_KEPT = f"{run_of().folder}.json"
RECORDS = (
    Reader("run.json", "run.json", _whole_run, _show, _records, _beside_run),
    Reader("run.json, another value", "run.json", _whole_run, _show, beside=_beside_run, damage=_VALUE),
    Reader("result.json", "result.json", _result, _show, _texts, _beside_run),
    Reader("result.json, another value", "result.json", _result, _show, beside=_beside_run, damage=_VALUE),
    Reader("log.jsonl", "log.jsonl", _log, _logs, _texts, _beside_run),
    Reader("log.jsonl, another value", "log.jsonl", _one_row, _logs, beside=_beside_run, damage=_VALUE),
    Reader("analysis-….json", "analysis-corruption.json", _reading, _measured, _texts, wrap=_sealed, damage=_VALUE),
    Reader(
        "kept run", _KEPT, _kept_run, lambda folder: archive.unpack(folder / _KEPT), _texts, wrap=_sealed, damage=_VALUE
    ),
    Reader("diverged.json", "diverged.json", _divergence, _show, _texts, _beside_unfinished),
    Reader("lease", "lease.000001", _owner, _lease, _texts, _beside_unfinished),
)
