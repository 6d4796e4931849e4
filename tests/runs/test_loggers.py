from __future__ import annotations

import json
import struct
import sys
import time
from pathlib import Path

import pytest

from sftn.errors import InputError, Stopped
from sftn.runs.loggers import LOGGERS, opened
from sftn.runs.runner import train
from sftn.spec.execution import Execution
from sftn.spec.run import Run
from tests.support import tiny

ROWS = [{"phase": "train", "epoch": epoch, "loss": 1.0 / epoch, "lr": 0.05} for epoch in (1, 2, 3)]


@pytest.fixture
def run() -> Run:
    return tiny.run(tiny.dataset())


def scalars(folder: Path) -> dict[int, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {event.step: event.value for event in events.Scalars("train/loss")}


def test_tensorboard_goes_on_where_the_last_checkpoint_was(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for history, new in (([], ROWS[:2]), (ROWS[:1], ROWS[1:])):
        (logger,) = opened(["tensorboard", "tensorboard"], tmp_path, run, history)
        for number, row in enumerate(new, len(history) + 1):
            logger.epoch(number, row)
        logger.close(failed=False)
    assert scalars(tmp_path) == pytest.approx({1: 1.0, 2: 0.5, 3: 1 / 3})


def test_wandb_offline_is_whole_after_an_interruption(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for history, new in (([], ROWS[:2]), (ROWS[:1], ROWS[1:])):
        (logger,) = opened(["wandb"], tmp_path, run, history)
        for number, row in enumerate(new, len(history) + 1):
            logger.epoch(number, row)
        logger.close(failed=not history)
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert {folder.name.rpartition("-")[2] for folder in folders} == {run.id}
    deadline = time.monotonic() + 10  # a process of W&B's own writes the file
    while len(records(folders[-1])) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert records(folders[-1]) == {1: 1.0, 2: 0.5, 3: 1 / 3}


def records(folder: Path) -> dict[int, float]:
    """Step and loss of every row in a file of W&B's: a header of 7 bytes, then LevelDB's log format."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("*.wandb")
    data, place, whole, found = path.read_bytes(), 7, b"", {}
    while place + 7 <= len(data):
        left = 2**15 - place % 2**15
        _, length, kind = struct.unpack("<IHB", data[place : place + 7]) if left >= 7 else (0, left - 7, 0)
        whole += data[place + 7 : place + 7 + length] if kind else b""
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record.FromString(whole)
            whole = b""
            row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            found |= {int(row["_step"]): row["train/loss"]} if row else {}
    return found


@pytest.mark.usefixtures("tiny_networks")
def test_a_run_tells_its_loggers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []

    class Told:
        def __init__(self, folder: Path, run: Run, history: list[dict[str, object]]) -> None:
            told.append(len(history))

        def epoch(self, number: int, row: dict[str, object]) -> None:
            told.append((number, row["phase"]))

        def close(self, failed: bool) -> None:
            told.append(failed)

    class Stop:
        def start(self, *arguments: object) -> None: ...
        def step(self, step: int) -> None: ...

        def epoch(self, row: dict[str, object]) -> None:
            if row["epoch"] == 2:
                raise Stopped(15)

    monkeypatch.setitem(LOGGERS, "told", Told)
    data = tiny.dataset()
    run = tiny.run(data, epochs=3)
    with pytest.raises(Stopped):
        train(run, data, tmp_path, Execution(log=["told"], checkpoint_seconds=0), callback=Stop())
    train(run, data, tmp_path, Execution(log=["told"]))
    # The second epoch was logged but not saved: it is trained and told again.
    assert told == [0, (1, "train"), (2, "train"), True, 1, (2, "train"), (3, "train"), False]


@pytest.mark.parametrize(("module", "name"), [("torch.utils.tensorboard", "tensorboard"), ("wandb", "wandb")])
def test_a_missing_library_is_one_line(
    module: str, name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"not installed: pip install 'sftn\[{name}\]'"):
        opened([name], tmp_path, run, [])
    with pytest.raises(InputError, match="unknown logger 'tensorbord': did you mean tensorboard"):
        opened(["tensorbord"], tmp_path, run, [])
