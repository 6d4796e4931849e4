from __future__ import annotations

import sys
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
