"""The folder of all runs: what is there, in which state, what is broken. Trains nothing."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from sftn.errors import InputError, unknown
from sftn.leases import Owner, holder
from sftn.run import Data, Run, result, sha256

if TYPE_CHECKING:
    from sftn.data.dataset import Dataset

DONE, RUNNING, INTERRUPTED, WAITING, BROKEN = "done", "running", "interrupted", "not begun", "broken"


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


def look(folder: Path) -> Entry:
    """What a run's folder holds."""
    run = None
    try:
        run = Run.read(folder)
        record = result(folder, run)
        if record is not None:
            accuracy, seconds = float(record["accuracy"]), float(record["seconds"])
            if not 0 <= accuracy <= 100 or seconds < 0:
                raise InputError(f"{folder / 'result.json'} was edited: accuracy {accuracy}, seconds {seconds}")
            if not (folder / "weights.safetensors").is_file():
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
        entry = look(folder)
        if entry.state == RUNNING:
            raise InputError(f"{folder.name} is being trained by {entry.owner}: stop that first")
        if folder.is_symlink() or not (folder / "run.json").exists():
            raise InputError(f"{folder} is not a run's folder: nothing was removed")
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


def verify(folder: Path, dataset: Dataset, device: str = "auto") -> list[str]:
    """What is wrong with a finished run; its network is evaluated again and must do exactly as recorded.

    Args:
        folder: of the run.
        dataset: the images that it was trained on.
        device: auto, cpu, cuda or mps; on another one than the run's, rounding may change an image.
    """
    from sftn.data.dataset import fingerprint
    from sftn.device import make_fabric
    from sftn.evaluate import evaluate
    from sftn.train import load_teacher

    found = faults(folder)
    entry = look(folder)
    if entry.state != DONE or entry.run is None or entry.result is None:
        return found
    if fingerprint(dataset)[:16] != entry.run.data.fingerprint:
        return [*found, f"the images are not those of {entry.run.data.name} that it was trained on: check --data-dir"]
    fabric = make_fabric(device, entry.run.precision)
    try:
        network = load_teacher(entry.run, dataset, folder.parent).to(fabric.device)
    except InputError as error:
        return [*found, str(error)]
    again = evaluate(network, dataset.test.to(fabric.device), dataset.normalisation, fabric)["accuracy"]
    if again != entry.result["accuracy"]:
        found.append(f"{folder.name} recorded {entry.result['accuracy']:.4f} % but does {again:.4f} %")
    return found


def history(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's log.

    Raises:
        InputError: the log is damaged.
    """
    path = folder / "log.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line]
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error})") from error
    return [row for row in rows if isinstance(row, dict)]


def command(what: str, names: Sequence[str], out: Path, data_dir: Path | None, device: str) -> None:
    """List, show, remove or verify runs, a line each; ends with exit code 1 if a verified run is not what it says.

    Raises:
        InputError: a run is unknown or must not be removed, or its images are not there.
    """
    console = Console(highlight=False)
    if what == "list":
        _list(scan(out), console)
        return
    if not names and what != "verify":
        raise InputError(f"say which runs to {what}: a folder or the beginning of an id, see sftn runs list")
    folders = [find(name, out) for name in names]
    if what == "rm":
        remove(folders)
        console.print(f"Removed: {', '.join(folder.name for folder in folders)}", soft_wrap=True)
    elif what == "show":
        for folder in folders:
            _show(look(folder), console)
    else:
        folders = folders or [entry.folder for entry in scan(out) if entry.state in (DONE, BROKEN)]
        bad = sum(_verified(folder, data_dir, device, console) for folder in folders)
        console.print(f"{len(folders) - bad} of {len(folders)} runs are what they say")
        if bad:
            sys.exit(1)


def _list(entries: Sequence[Entry], console: Console) -> None:
    shown = Table(box=None, pad_edge=False)
    for column in ("run", "seed", "images", "epochs", "state", "last %", "best %", "hours", "id"):
        shown.add_column(column, no_wrap=column != "run", overflow="fold")
    for entry in entries:
        run, record = entry.run, entry.result or {}
        state = f"{entry.state}: {entry.owner}" if entry.owner else entry.state
        numbers = [f"{record[name]:.2f}" if name in record else "" for name in ("accuracy", "best_accuracy")]
        hours = f"{record['seconds'] / 3600:.2f}" if "seconds" in record else ""
        about = ("?",) * 3 if run is None else (str(run.seed), run.data.name, str(run.schedule.epochs))
        name, _, tail = entry.folder.name.rpartition("-")
        shown.add_row(
            name if run is None else run.name, *about, state, *numbers, hours, tail if run is None else run.id
        )
    console.print(shown)
    for entry in entries:
        if entry.reason:
            console.print(f"broken: {entry.reason}", soft_wrap=True)
    counts = {
        state: sum(entry.state == state for entry in entries) for state in (DONE, RUNNING, INTERRUPTED, WAITING, BROKEN)
    }
    console.print(", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no runs")


def _show(entry: Entry, console: Console) -> None:
    console.print(f"{entry.folder}: {entry.state} {entry.owner or entry.reason}".rstrip(), soft_wrap=True)
    if entry.run is not None:
        console.print_json(json.dumps(asdict(entry.run)))
    if entry.result is not None:
        console.print_json(json.dumps(entry.result))


def _verified(folder: Path, data_dir: Path | None, device: str, console: Console) -> bool:
    """Whether something is wrong with a run; said in a line."""
    run = look(folder).run
    found = faults(folder) if run is None else verify(folder, _load(run.data, data_dir), device)
    console.print(
        f"{'NOT as it says' if found else 'good'}  {folder.name}  {'; '.join(found)}".rstrip(), soft_wrap=True
    )
    return bool(found)


@cache
def _load(data: Data, data_dir: Path | None) -> Dataset:
    from sftn.data import load

    return load(data.name, data_dir=data_dir, limit=data.limit, classes=data.classes, size=data.size)
