"""The folder of all runs: what is there, in which state, what is broken. Trains nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftn.errors import InputError, unknown
from sftn.spec.run import FORMAT, Run
from sftn.storage import records
from sftn.storage.atomic import sync_folder
from sftn.storage.faults import file_error
from sftn.storage.json_files import read_json, sha256, write_json
from sftn.storage.lease import Owner, holder
from sftn.storage.records import read_text

if TYPE_CHECKING:
    from sftn.data.dataset import Dataset

DIVERGED = "diverged.json"
KEPT = "kept"
"""A file that says that the weights of a finished run are elsewhere (`sftn.runs.archive`)."""
DONE, RUNNING, INTERRUPTED, WAITING, BROKEN = "done", "running", "interrupted", "not begun", "broken"

_RESULT = {
    **dict.fromkeys(("accuracy", "best_accuracy", "seconds"), float),
    **dict.fromkeys(("test", "train"), Mapping[str, float]),
    "parameters": int,
    "environment": Mapping[str, str | int | bool | None],
    "weights_sha256": str,
}
"""What is read from a result, where it is there."""


@dataclass(frozen=True)
class Entry:
    """A run's folder as it was found."""

    folder: Path
    state: str
    """DONE, RUNNING, INTERRUPTED, WAITING (a record and nothing else) or BROKEN."""
    run: Run | None = None
    result: dict[str, Any] | None = None
    owner: Owner | None = None
    """Who carries it out just now."""
    reason: str = ""
    """Why it is broken."""

    @property
    def diverged(self) -> bool:
        """Whether it left a record of a number that was not finite, and is not done since."""
        return self.state != DONE and (self.folder / DIVERGED).exists()


def write_run(run: Run, folder: Path) -> None:
    """Leave the record of a run in its folder, which is made if need be.

    Raises:
        InputError: the folder cannot be made or written, or holds another run.
    """
    try:
        new = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for path in new:
            sync_folder(path.parent)
    except OSError as error:
        raise file_error("make", folder, error) from error
    path = folder / "run.json"
    if not path.exists():
        write_json(path, {"format": FORMAT, "id": run.id, **asdict(run)})
    elif read_run(folder).id != run.id:
        raise InputError(f"{folder} holds another run: choose another --out")


def read_run(folder: Path) -> Run:
    """The record in a run's folder.

    Raises:
        InputError: there is none, or it is damaged or of another format.
    """
    path = folder / "run.json"
    record = read_json(path)
    try:
        run = records.decode(Run, {name: value for name, value in record.items() if name not in ("format", "id")})
        own = run.id
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a record of a run ({error}): train it again elsewhere") from error
    if record.get("format") != FORMAT or record.get("id") != own:
        raise InputError(f"{path} was edited or is of another format: train it again elsewhere")
    return run


def result(folder: Path, run: Run) -> dict[str, Any] | None:
    """What a run left, or None if it is not done.

    Raises:
        InputError: the result is damaged or of another run.
    """
    path = folder / "result.json"
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
        raise InputError(f"{path} garbles its {name} ({error}): remove its folder to train it again") from error
    return record


def look(folder: Path) -> Entry:
    """What a run's folder holds."""
    run = None
    try:
        run = read_run(folder)
        record = result(folder, run)
        if record is not None:
            accuracy, seconds = float(record["accuracy"]), float(record["seconds"])
            if not 0 <= accuracy <= 100 or seconds < 0:
                raise InputError(f"{folder / 'result.json'} was edited: accuracy {accuracy}, seconds {seconds}")
            if not (folder / "weights.safetensors").is_file() and not (folder / KEPT).is_file():
                raise InputError(f"{folder} has a result but no weights: remove it and train it again")
            return Entry(folder, DONE, run, record)
        owner = holder(folder)
    except (InputError, OSError) as error:
        return Entry(folder, BROKEN, run, reason=str(error))
    except (KeyError, TypeError, ValueError) as error:
        return Entry(
            folder, BROKEN, run, reason=f"{folder / 'result.json'} lacks or garbles {error}: remove the folder"
        )
    if owner is not None:
        return Entry(folder, RUNNING, run, owner=owner)
    begun = any((folder / f"checkpoint{which}.safetensors").exists() for which in ("", ".previous"))
    begun = begun or (folder / "log.jsonl").exists()
    return Entry(folder, INTERRUPTED if begun else WAITING, run)


def scan(out: Path) -> list[Entry]:
    """Every run in a folder, by name.

    Raises:
        InputError: the folder is not there.
    """
    try:
        folders = sorted(path for path in out.iterdir() if path.is_dir())
    except OSError as error:
        raise InputError(f"cannot read {out}: {error.strerror}; name the folder of runs with --out") from error
    return [look(folder) for folder in folders if (folder / "run.json").exists() or (folder / "result.json").exists()]


def find(name: str, out: Path) -> Path:
    """The folder of a run that is named by its folder, its path or the beginning of its id.

    Raises:
        InputError: there is none, or there are several.
    """
    for path in (Path(name), out / name):
        if (path / "run.json").exists() or (path / "result.json").exists():
            return path
    folders = [entry.folder for entry in scan(out)]
    ids = {folder: folder.name.rpartition("-")[2] for folder in folders}
    found = [folder for folder, run_id in ids.items() if len(name) >= 4 and run_id.startswith(name)]
    if len(found) > 1:
        raise InputError(f"{name} is the beginning of {len(found)} runs: write more of it")
    if not found:
        raise unknown("run", name, [folder.name for folder in folders]) if folders else InputError(f"no run in {out}")
    return found[0]


def remove(folders: Sequence[Path]) -> None:
    """Delete runs, all or none.

    Raises:
        InputError: one of them is being trained, is no run's folder, or cannot be deleted.
    """
    for folder in folders:
        if folder.is_symlink() or not (folder / "run.json").exists():
            raise InputError(f"{folder} is not a run's folder: nothing was removed")
        try:
            owner = None if look(folder).state == DONE else holder(folder, exact=True)
        except OSError as error:
            raise InputError(f"cannot remove {folder}: {error.strerror}") from error
        if owner is not None:
            raise InputError(f"{folder.name} is being trained by {owner}: stop that first")
    for folder in folders:
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise InputError(f"cannot remove {folder}: {error.strerror}") from error


def faults(folder: Path) -> list[str]:
    """What is wrong with the files of a finished run, a line each: read again and hashed again, not yet evaluated."""
    entry = look(folder)
    if entry.state == BROKEN:
        return [entry.reason]
    if entry.state != DONE or entry.result is None:
        return [f"{folder} is {entry.state}: there is no result to verify"]
    found = []
    recorded = entry.result.get("weights_sha256")
    if recorded is None:
        found.append(f"{folder / 'result.json'} names no hash of the weights: it is of an older version or was edited")
    elif sha256(folder / "weights.safetensors") != recorded:
        found.append(f"{folder / 'weights.safetensors'} is not the file that the result was measured on")
    if entry.run is not None and isinstance(entry.run.teacher, Run):
        teacher = folder.parent / entry.run.teacher.folder
        if look(teacher).state != DONE:
            found.append(f"its teacher {teacher.name} is {look(teacher).state if teacher.exists() else 'not there'}")
    return found


def verify(folder: Path, dataset: Dataset, device: str = "auto", say: Callable[[str], None] | None = None) -> list[str]:
    """What is wrong with a finished run; its network is evaluated again and must do exactly as recorded.

    Args:
        folder: of the run.
        dataset: the images that it was trained on.
        device: auto, cpu, cuda or mps; on another one than the run's, rounding may change an image.
        say: is told where the environment is not the recorded one, if the network does not do as recorded.
    """
    from sftn.runs.build import load_teacher
    from sftn.runtime.device import make_fabric
    from sftn.runtime.environment import changes
    from sftn.training.evaluate import evaluate

    found = faults(folder)
    entry = look(folder)
    if entry.state != DONE or entry.run is None or entry.result is None:
        return found
    if dataset.identity != entry.run.data.fingerprint:
        return [*found, f"the images are not those of {entry.run.data.name} that it was trained on: check --data-dir"]
    fabric = make_fabric(device, entry.run.precision)
    try:
        network = load_teacher(entry.run, dataset, folder.parent).to(fabric.device)
    except InputError as error:
        return [*found, str(error)]
    again = evaluate(network, dataset.test.to(fabric.device), dataset.normalisation, fabric)["accuracy"]
    if again != entry.result["accuracy"]:
        found.append(f"{folder.name} recorded {entry.result['accuracy']:.4f} % but does {again:.4f} %")
        elsewhere = changes(entry.result.get("environment", {}), str(fabric.device))
        if elsewhere and say is not None:
            say(f"{folder.name} was measured elsewhere: {', '.join(elsewhere)}")
    return found


def divergence(folder: Path) -> dict[str, Any]:
    """What is known of the number that was not finite.

    Raises:
        InputError: there is no such record, or it is damaged or larger than 1 MiB.
    """
    read_text(folder / DIVERGED, largest=2**20)
    return read_json(folder / DIVERGED)


def history(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's log.

    Raises:
        InputError: the log is damaged.
    """
    path = folder / "log.jsonl"
    try:
        rows = [json.loads(line) for line in read_text(path).splitlines() if line]
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}): remove it, or the folder to train it again") from error
    return [row for row in rows if isinstance(row, dict)]
