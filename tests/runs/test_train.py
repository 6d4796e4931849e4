from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from sftn.runs import train as training
from sftn.spec.jobs import TrainTeacher, asked
from sftn.storage.lease import Held
from tests.support import tiny

SMALL = {"epochs": 1, "batch": 16, "precision": "float32"}


@pytest.mark.usefixtures("tiny_networks")
def test_a_run_of_another_process_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sftn")
    job = asked(TrainTeacher, {"teacher": "tiny", "standard": True, "out": tmp_path, **SMALL})
    train, refused = training.train, iter(range(2))

    def held(*arguments: Any, **more: Any) -> dict[str, Any]:
        if next(refused, None) is not None:
            raise Held("tiny is being trained by process 7 on elsewhere: wait for it or choose another --out")
        return train(*arguments, **more)

    monkeypatch.setattr(training, "train", held)
    monkeypatch.setattr(training.time, "sleep", lambda seconds: None)
    found = training.train_teacher(job, tiny.dataset())
    assert found.accuracy > 0
    assert caplog.messages.count("tiny is being trained by process 7 on elsewhere: waiting for it") == 1
