from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from sftn.cli import main

ARGUMENTS = ["reproduce", "table17", "--smoke", "--seeds", "1", "--methods", "kd", "--timing-seconds", "0"]
ARGUMENTS += ["--executor", "ray", "--device", "cpu", "--out"]


def test_a_missing_ray_is_said_before_anything_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit) as stop:
        main([*ARGUMENTS, str(tmp_path)])
    said = capsys.readouterr()
    assert stop.value.code == 2
    assert "pip install 'sftn[ray]'" in said.err
    assert said.out == ""


def test_two_workers_of_a_local_cluster_do_the_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="ray is not installed")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        main([*ARGUMENTS, str(tmp_path)])
        again = capsys.readouterr().out
        assert again.count(" seed 0  ") == 5
        main([*ARGUMENTS, str(tmp_path)])
    finally:
        ray.shutdown()
    assert len(list(tmp_path.glob("*/result.json"))) == 5
    assert not list(tmp_path.glob("*/checkpoint*"))


@pytest.mark.slow
def test_a_worker_that_is_killed_leaves_its_run_to_another(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="ray is not installed")
    owners: dict[str, list[int]] = {}
    killed: list[tuple[str, int]] = []
    over = threading.Event()

    def kill_the_first_that_trains() -> None:
        while not over.is_set():
            for log in tmp_path.glob("*/log.jsonl"):
                for lease in log.parent.glob("lease.*"):
                    try:
                        pid = json.loads(lease.read_text())["pid"]
                    except (OSError, ValueError):
                        continue
                    seen = owners.setdefault(log.parent.name, [])
                    if pid not in seen:
                        seen.append(pid)
                    if not killed and log.read_text().count("\n") >= 2:
                        killed.append((log.parent.name, pid))
                        os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    watching = threading.Thread(target=kill_the_first_that_trains)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    watching.start()
    try:
        main([*ARGUMENTS, str(tmp_path), "--epochs", "8", "--checkpoint-seconds", "0"])
    finally:
        over.set()
        watching.join()
        ray.shutdown()
    assert killed
    folder, pid = killed[0]
    assert pid != os.getpid()
    assert [owner for owner in owners[folder] if owner != pid], "nobody took the run over"
    assert len(list(tmp_path.glob("*/result.json"))) == 5
    rows = [json.loads(line) for line in (tmp_path / folder / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, 9))
    assert not list(tmp_path.glob("*/checkpoint*"))
    assert capsys.readouterr().out.count(" seed 0  ") == 5
