"""Finished runs that nobody trained: records as `sftn.runs.runner` leaves them, for tests of what only reads."""

from __future__ import annotations

import json
from pathlib import Path

from sftn.experiments.grid import Conditions, Planned, grid
from sftn.experiments.table import FRIENDLY, Table
from sftn.runs.folder import RunFolder
from sftn.spec.run import FORMAT, Data, Run
from sftn.spec.schedule import Schedule
from sftn.storage.json_files import sha256, write_json

PAPER = Conditions(Data("cifar100", "0123456789abcdef"), Schedule(), "float32")


def finish(out: Path, run: Run, accuracy: float) -> Path:
    """A run's folder with a result, a short log and a file in the place of weights."""
    folder = out / run.folder
    RunFolder(folder).write(run)
    (folder / "weights.safetensors").write_bytes(b"weights")
    rows = [{"epoch": epoch, "test_accuracy": accuracy - 10 / epoch} for epoch in (1, 2, 3)]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    environment = {
        **{"sftn": "0.1.0", "commit": "f00ba4", "torch": "2.0", "python": "3.11", "system": "Linux"},
        **{"device": "cuda (Some GPU)", "threads": 4},
    }
    record = {
        **{"format": FORMAT, "id": run.id, "name": run.name, "seconds": 60.0, "environment": environment},
        **{"accuracy": accuracy, "best_accuracy": accuracy + 0.5},
        **{"train": {"accuracy": accuracy + 20, "entropy": 0.01}},
        **{"weights_sha256": sha256(folder / "weights.safetensors")},
    }
    write_json(folder / "result.json", record)
    return folder


def accuracy(item: Planned) -> float:
    """Whatever: a point more from a friendly teacher, a tenth more a seed."""
    return 70.0 + (item.cell.way == FRIENDLY) + 0.1 * item.run.seed


def table(out: Path, which: Table, conditions: Conditions = PAPER, seeds: int = 3) -> list[Planned]:
    """A whole table of made results."""
    planned = grid(which, conditions, seeds)
    for item in planned:
        finish(out, item.run, accuracy(item))
    return planned
