from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = ["train-teacher", "--teacher", "resnet8", "--standard", "--data", "digits", "--limit", "60"]
ARGUMENTS += ["--batch", "20", "--device", "cpu", "--precision", "float32", "--checkpoint-seconds", "3600"]


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    env = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    env |= {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sftn.cli", *ARGUMENTS, "--out", str(out), *more]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


@pytest.mark.slow
def test_two_devices_are_stopped_by_a_signal_and_one_resumes(tmp_path: Path) -> None:
    two = start(tmp_path, "--devices", "2", "--epochs", "60")
    while not any(log.read_text().count("\n") > 1 for log in tmp_path.glob("*/log.jsonl")):
        assert two.poll() is None
        time.sleep(0.05)
    two.send_signal(signal.SIGTERM)
    began = time.monotonic()
    _, said = two.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert two.returncode == 128 + signal.SIGTERM
    assert said == "sftn: stopped; the state is saved, the same command resumes from here\n"
    assert list(tmp_path.glob("*/checkpoint.safetensors"))
    _, said = start(tmp_path, "--epochs", "60").communicate(timeout=120)
    assert said == ""
    (folder,) = tmp_path.glob("resnet8-*")
    assert json.loads((folder / "result.json").read_text())["environment"]["processes"] == 1
    rows = [json.loads(line)["epoch"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert rows == list(range(1, 61))


@pytest.mark.slow
def test_what_cannot_be_is_one_line(tmp_path: Path) -> None:
    child = start(tmp_path, "--devices", "4", "--batch", "29")
    _, said = child.communicate(timeout=60)
    assert child.returncode == 2
    assert said.startswith("sftn: the last batch of an epoch has 2 images for 4 processes")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())
