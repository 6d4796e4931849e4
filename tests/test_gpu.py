"""The script that checks and times a GPU works on a CPU, as far as a CPU can tell."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def tiny(folder: Path, *options: str) -> tuple[dict[str, Any], str]:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--device", "cpu", "--tiny", "--each", "0.02", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((folder / "gpu.json").read_text())["results"]
    return {one["item"]: one for one in results}, done.stdout


def test_what_is_found_is_printed_kept_and_told_by_the_exit_code(tmp_path: Path) -> None:
    found, said = tiny(tmp_path, "--only", "loader", "resumed", "float16", "naive")
    assert [item for item, one in found.items() if one["ok"] is not True] == ["checks float16"]
    assert found["checks float16"]["result"] == "float16 needs a GPU"
    assert found["naive resnet14:resnet8"]["result"]["images_per_second"] > 0
    assert "| resumed | ok | same bits: crd |" in said


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None and shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_all_that_a_cpu_can_do_of_it_is_well(tmp_path: Path) -> None:
    found, said = tiny(tmp_path, "--seconds", "1500")
    assert {item for item, one in found.items() if not one["ok"]} == {"checks float16", "checks waiting"}
    for how in ("captured", "eager"):
        assert found[f"distil resnet14:resnet8 kd bf16 {how}"]["result"]["flop"] > 0
        assert f"240 of the student by KD, {how}: " in said
    assert "`captured`: " in said
    assert "and all its checks passed" in said


def test_what_fails_dies_or_hangs_is_one_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    script = f"""
import os, sys, time
sys.path.insert(0, {str(BENCHMARKS)!r})
import gpu
from on_gpu import kernels
def wrong(place): raise ValueError("no such kernel\\nand more")
def crash(place): print("last words", flush=True); os._exit(3)
def hang(place): time.sleep(60)
if "--child" in sys.argv:
    for name, check in {{"wrong": wrong, "crash": crash, "hang": hang, "fine": lambda place: "seen"}}.items():
        setattr(kernels, name, check)
gpu.CHECKS, gpu.SLOWEST, gpu.__file__ = ("wrong", "crash", "hang", "fine"), 2.0, __file__
gpu.main()
"""
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, "script.py", "--device", "cpu", "--tiny", "--only", "wrong", "crash", "hang", "fine"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    for row in (
        "| wrong | **FAILED** | ValueError: no such kernel |",
        "| crash | **FAILED** | its process ended: last words |",
        "| hang | **FAILED** | gave no answer for 2 s |",
        "| fine | ok | seen |",
    ):
        assert row in done.stdout, done.stdout + done.stderr
