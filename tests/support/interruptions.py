"""What befalls a run at a given step: crashes and signals."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sftn.spec.run import Run


class Bomb:
    """A callback that does something at the n-th step of a run."""

    def __init__(self, at: int, act: Callable[[], None]) -> None:
        self.left, self.act = at, act

    def start(self, phase: str, epochs: int, steps: int, done: int) -> None: ...

    def epoch(self, row: Any) -> None: ...

    def step(self, step: int) -> None:
        self.left -= 1
        if self.left == 0:
            self.act()


def crash() -> None:
    raise ConnectionError("power cut")


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def rows(out: Path, run: Run) -> list[dict[str, Any]]:
    lines = (out / run.folder / "log.jsonl").read_text().splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if key not in ("seconds", "images_per_second")}
        for line in lines
    ]
