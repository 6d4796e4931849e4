"""What a run left in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sftn.spec.run import Run
from tests.support import tiny


def quiet(*line: str) -> None: ...


def left(out: Path, run: Run) -> tuple[Any, ...]:
    """All that a run left but how long it took, and who did it when."""
    folder = out / run.folder
    record = json.loads((folder / "result.json").read_text())
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    for timed in (record, *rows):
        for key in ("seconds", "images_per_second"):
            timed.pop(key, None)
    return record, rows, tiny.weights(out, run), sorted(path.name for path in folder.iterdir())
