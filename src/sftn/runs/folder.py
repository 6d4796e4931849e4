"""The folder of a run and the folder of all runs: their files, each run's state, and what is broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sftn.errors import InputError, unknown
from sftn.spec.run import FORMAT, Run
from sftn.storage import records
from sftn.storage.atomic import make_folder
from sftn.storage.json_files import read_json, sha256, write_json
from sftn.storage.lease import Owner, holder
from sftn.storage.records import read_text

LAST = "last"
"""The name of the run that was finished last."""
DONE, RUNNING, INTERRUPTED, WAITING, BROKEN = "done", "running", "interrupted", "not begun", "broken"

_RESULT = {
    **dict.fromkeys(("accuracy", "best_accuracy", "seconds"), float),
    **dict.fromkeys(("test", "train"), Mapping[str, float]),
    "by_class": Mapping[str, tuple[float | None, ...]],
    "balanced_accuracy": float | None,
    "warnings": tuple[str, ...],
    "parameters": int,
    "environment": Mapping[str, str | int | bool | None],
    "weights_sha256": str,
}
"""Types of the values of a result that are checked when present."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, `RunFolder(out / run.folder)`, and the files in it."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name

    @property
    def run_json(self) -> Path:
        """The run's record, `run.json`."""
        return self.path / "run.json"

    @property
    def result_json(self) -> Path:
        """The run's result and environment, `result.json`: written last, so a run that has one is done."""
        return self.path / "result.json"

    @property
    def log(self) -> Path:
        """The run's log, `log.jsonl`: one JSON object per epoch."""
        return self.path / "log.jsonl"

    @property
    def weights(self) -> Path:
        """The trained network's weights, `weights.safetensors`."""
        return self.path / "weights.safetensors"

    @property
    def diverged_json(self) -> Path:
        """Details of the last non-finite number that ended the run, `diverged.json`."""
        return self.path / "diverged.json"

    @property
    def archived(self) -> Path:
        """The file that marks a finished run whose weights are not in its folder (`sftn.runs.archive`)."""
        return self.path / "kept"

    def beside(self, run: Run) -> RunFolder:
        """The folder of another run in the same folder of runs."""
        return RunFolder(self.path.parent / run.folder)

    def holds_run(self) -> bool:
        """Whether this is the folder of a run, intact or broken."""
        return self.run_json.exists() or self.result_json.exists()

    def write(self, run: Run) -> None:
        """Write the record of a run, and create the folder if it is missing.

        Raises:
            InputError: the folder cannot be created or written, or holds another run.
        """
        make_folder(self.path)
        if not self.run_json.exists():
            write_json(self.run_json, {"format": FORMAT, "id": run.id, **asdict(run)})
        elif self.run().id != run.id:
            raise InputError(f"{self} holds another run: choose another --out")

    def run(self) -> Run:
        """The record of the run.

        Raises:
            InputError: there is none, or it is damaged or of another format.
        """
        path = self.run_json
        record = read_json(path)
        try:
            run = records.decode(Run, {name: value for name, value in record.items() if name not in ("format", "id")})
            own = run.id
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{path} is not a record of a run ({error}): train it again elsewhere") from error
        if record.get("format") != FORMAT or record.get("id") != own:
            raise InputError(f"{path} was edited or is of another format: train it again elsewhere")
        return run

    def result(self, run: Run) -> dict[str, Any] | None:
        """The result of the run, or None if it is not done.

        Raises:
            InputError: the result is damaged or of another run.
        """
        path = self.result_json
        if not path.exists():
            return None
        record = read_json(path)
        if record.get("format") != FORMAT or record.get("id") != run.id:
            raise InputError(f"{path} is of another run or format: remove its folder to train it again")
        try:
            for name, kind in _RESULT.items():
                if name in record:
                    records.decode_value(record[name], kind)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{path} has an invalid {name} ({error}): remove its folder to train it again") from error
        return record

    def history(self) -> list[dict[str, Any]]:
        """The rows of the log.

        Raises:
            InputError: the log is damaged.
        """
        try:
            rows = [json.loads(line) for line in read_text(self.log).splitlines() if line]
        except InputError:
            raise
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{self.log} cannot be read ({error}): remove it, or the folder to train it again"
            ) from error
        return [row for row in rows if isinstance(row, dict)]

    def divergence(self) -> dict[str, Any]:
        """The record of the non-finite number that ended the run.

        Raises:
            InputError: the record is missing, damaged or larger than 1 MiB.
        """
        read_text(self.diverged_json, largest=2**20)
        return read_json(self.diverged_json)

    def inspect(self) -> Entry:
        """Read the run, its result and its state; errors become the state BROKEN."""
        run = None
        try:
            run = self.run()
            record = self.result(run)
            if record is not None:
                accuracy, seconds = float(record["accuracy"]), float(record["seconds"])
                if not 0 <= accuracy <= 100 or seconds < 0:
                    raise InputError(f"{self.result_json} was edited: accuracy {accuracy}, seconds {seconds}")
                if not self.weights.is_file() and not self.archived.is_file():
                    raise InputError(f"{self} has a result but no weights: remove it and train it again")
                return Entry(self, DONE, run, record)
            owner = holder(self.path)
        except (InputError, OSError) as error:
            return Entry(self, BROKEN, run, reason=str(error))
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{self.result_json} has a missing or invalid value ({error}): remove the folder"
            return Entry(self, BROKEN, run, reason=reason)
        if owner is not None:
            return Entry(self, RUNNING, run, owner=owner)
        begun = self.log.exists() or any(self.path.glob("checkpoint*.safetensors"))
        return Entry(self, INTERRUPTED if begun else WAITING, run)

    def faults(self) -> list[str]:
        """What is wrong with a finished run's files, one line each: they are read and hashed, not evaluated."""
        entry = self.inspect()
        if entry.state == BROKEN:
            return [entry.reason]
        if entry.state != DONE or entry.result is None:
            return [f"{self} is {entry.state}: there is no result to verify"]
        found = []
        recorded = entry.result.get("weights_sha256")
        if recorded is None:
            found.append(f"{self.result_json} has no hash of the weights: it is of an older version or was edited")
        elif sha256(self.weights) != recorded:
            found.append(f"{self.weights} is not the file that the result was measured on")
        for one in () if entry.run is None else entry.run.teachers:
            if not isinstance(one, Run):
                continue
            teacher = self.beside(one)
            state = teacher.inspect().state if teacher.path.exists() else "missing"
            if state != DONE:
                found.append(f"its teacher {teacher.name} is {state}")
        return found

    def tidy(self) -> None:
        """Remove the files that a finished run no longer needs, and what killed processes left behind."""
        self._remove("checkpoint*.safetensors", self.diverged_json.name, ".*.tmp", "lease.*")

    def sweep(self) -> None:
        """Remove temporary files of killed processes, so that they do not fill the disk."""
        self._remove(".*.tmp")

    def _remove(self, *patterns: str) -> None:
        for pattern in patterns:
            for path in self.path.glob(pattern):
                with suppress(OSError):
                    path.unlink()


@dataclass(frozen=True)
class Entry:
    """The state of a run's folder when it was inspected."""

    folder: RunFolder
    state: str
    """DONE, RUNNING, INTERRUPTED, WAITING (only a record so far) or BROKEN."""
    run: Run | None = None
    result: dict[str, Any] | None = None
    owner: Owner | None = None
    """The process that is training it."""
    reason: str = ""
    """Why it is BROKEN."""

    @property
    def diverged(self) -> bool:
        """Whether a non-finite number ended the run and it has not been finished since."""
        return self.state != DONE and self.folder.diverged_json.exists()


def scan(out: Path) -> list[Entry]:
    """Every run in a folder, sorted by name.

    Raises:
        InputError: the folder does not exist.
    """
    try:
        folders = [RunFolder(path) for path in sorted(out.iterdir()) if path.is_dir()]
    except OSError as error:
        raise InputError(f"cannot read {out}: {error.strerror}; name the folder of runs with --out") from error
    return [folder.inspect() for folder in folders if folder.holds_run()]


def find(name: str, out: Path) -> RunFolder:
    """Find a run by its folder's path, by the beginning of its folder's name or of its id, or as `last`.

    `last` is the run that was finished last.

    Raises:
        InputError: no run or several runs match.
    """
    for folder in (RunFolder(Path(name)), RunFolder(out / name)):
        if folder.holds_run():
            return folder
    if (
        comparison := next((at for at in (Path(name), out / name) if (at / "comparison.json").exists()), None)
    ) is not None:
        raise InputError(f"{comparison} is a comparison, not a run: sftn report {comparison} shows it")
    entries = scan(out)
    folders = [entry.folder for entry in entries]
    if not folders:
        raise InputError(f"there is no run {name}, because {out} has no runs: name their folder with --out")
    if name == LAST:
        done = [folder for folder in folders if folder.result_json.exists()]
        if not done:
            raise InputError(f"no run in {out} is done yet")
        return max(done, key=lambda folder: folder.result_json.stat().st_mtime_ns)
    found = [folder for folder in folders if len(name) >= 4 and folder.name.rpartition("-")[2].startswith(name)]
    found = found or [entry.folder for entry in entries if entry.run is not None and entry.run.name == name]
    found = found or [folder for folder in folders if name and folder.name.startswith(name)]
    if len(found) > 1:
        some = ", ".join(folder.name for folder in found[:3]) + ", …" * (len(found) > 3)
        raise InputError(f"{name} matches {len(found)} runs ({some}): give more of the name or of the id")
    if not found:
        raise unknown("run", name, [LAST, *(folder.name for folder in folders)])
    return found[0]


def remove(folders: Sequence[RunFolder]) -> None:
    """Delete runs; nothing is deleted if one of them is refused.

    Raises:
        InputError: one of them is being trained, is not a run's folder, or cannot be deleted.
    """
    for folder in folders:
        if folder.path.is_symlink() or not folder.run_json.exists():
            raise InputError(f"{folder} is not a run's folder: nothing was removed")
        try:
            owner = None if folder.inspect().state == DONE else holder(folder.path, exact=True)
        except OSError as error:
            raise InputError(f"cannot remove {folder}: {error.strerror}") from error
        if owner is not None:
            raise InputError(f"{folder.name} is being trained by {owner}: stop that first")
    for folder in folders:
        try:
            shutil.rmtree(folder.path)
        except OSError as error:
            raise InputError(f"cannot remove {folder}: {error.strerror}") from error
