from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import sftn
from sftn.cli import COMMANDS
from sftn.errors import Stopped
from tests.support.command import called, refusal

FAST = ["--limit", "40", "--epochs", "1", "--batch", "20", "--precision", "float32", "--jobs", "1"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["comprae"], "compare"),
        (["compare", "--methdos", "kd"], "--methods"),
        (["compare", "--epochs", "x"], "--epochs"),
        (["compare", "--epochs", "0"], "epochs"),
        (["compare", "--epochs", "-3"], "epochs"),
        (["compare", "--batch", "0"], "batch"),
        (["compare", "--batch", "100000"], "batch"),
        (["compare", "--lr", "-1"], "lr"),
        (["compare", "--seeds", "0"], "seeds"),
        (["compare", "--temperature", "0"], "temperature"),
        (["compare", "--temperature", "-4"], "temperature"),
        (["compare", "--branch-temperature", "0", *FAST], "temperature"),
        (["compare", "--student", "resnet9"], "resnet8"),
        (["compare", "--teacher", "resnet9"], "resnet8"),
        (["compare", "--methods", "crdd"], "crd"),
        (["compare", "--methods"], "method"),
        (["compare", "--data", "cifar1000"], "cifar100"),
        (["compare", "--data", "folder:/nowhere"], "/nowhere"),
        (["compare", "--limit", "3"], "limit"),
        (["compare", "--classes", "1"], "classes"),
        (["compare", "--recipe", "papr"], "paper"),
        (["compare", "--precision", "fp8"], "fp8"),
        (["compare", "--device", "tpu"], "tpu"),
        (["train-teacher", "--teacher", "resnet8"], "--standard"),
        (["train-teacher"], "--teacher"),
        (["distill", "--teacher", "/nowhere", "--student", "resnet8"], "/nowhere"),
        (["evaluate", "/nowhere"], "/nowhere"),
        (["describe", "resnet9"], "resnet8"),
        (["describe", "resnet8", "--student", "vgg"], "vgg"),
        (["describe", "vgg13", "--student", "vgg8", "--branches", "4"], "branches"),
        (["list", "everything"], "networks"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    arguments: list[str], word: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if arguments[0] in ("compare", "train-teacher", "distill"):
        arguments = [*arguments, "--out", str(tmp_path / "runs")]
    assert word in refusal(*arguments, capsys=capsys)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_an_output_folder_that_cannot_be_written_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "file/runs" in refusal("compare", *FAST, "--out", str(tmp_path / "file" / "runs"), capsys=capsys)


def test_the_main_job_from_teacher_to_student(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = str(tmp_path)
    code, said, err = called(
        "train-teacher", "--teacher", "wrn_10_1", "--student", "resnet8", *FAST, "--out", out, capsys=capsys
    )
    assert (code, err) == (0, "")
    (teacher,) = tmp_path.iterdir()
    assert teacher.name in said.replace("\n", "")
    assert sorted(path.name for path in teacher.iterdir()) == [
        "log.jsonl",
        "result.json",
        "run.json",
        "weights.safetensors",
    ]

    base = ["distill", "--student", "resnet8", *FAST, "--out", out]
    assert called(*base, "--teacher", str(teacher), capsys=capsys)[0] == 0
    assert called(*base, "--teacher", str(teacher / "weights.safetensors"), capsys=capsys)[0] == 0
    results = {
        path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("resnet8-kd-from-*/result.json")
    }
    assert len(results) == 2
    assert len({result["accuracy"] for result in results.values()}) == 1

    recorded = json.loads((teacher / "result.json").read_text())["accuracy"]
    for what in ([str(teacher)], [str(teacher / "weights.safetensors"), "--data", "digits"]):
        code, said, _ = called("evaluate", *what, "--precision", "float32", capsys=capsys)
        assert code == 0
        assert f"{recorded:.2f} %" in said


def test_a_file_of_weights_must_fit(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from sftn.networks import build

    path = tmp_path / "benchmark.pth"
    torch.save({"model": build("resnet8", 7, 1).state_dict()}, path)
    base = ["distill", "--student", "resnet8", *FAST, "--out", str(tmp_path / "runs"), "--teacher", str(path)]
    for options, word in (
        ([], "does not record its network"),
        (["--teacher-network", "resnet8"], "7"),
        (["--teacher-network", "resnet20"], "resnet20"),
    ):
        assert word in refusal(*base, *options, capsys=capsys)


def test_lists_name_everything(capsys: pytest.CaptureFixture[str]) -> None:
    from sftn.data.load import SOURCES
    from sftn.experiments.paper import TABLES
    from sftn.networks import NETWORKS
    from sftn.tasks.recipes import OBJECTIVES

    for what, names in (("networks", NETWORKS), ("methods", OBJECTIVES), ("data", SOURCES), ("tables", TABLES)):
        code, said, _ = called("list", what, capsys=capsys)
        assert code == 0
        assert set(names) <= {line.split()[0] for line in said.splitlines() if line}


def test_the_list_of_methods_has_every_option_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    _, said, _ = called("list", "methods", capsys=capsys)
    rows = {tuple(line.split()[:3]) for line in said.splitlines() if line}
    assert {("crd", "negatives", "16384"), ("dkd", "beta", "8"), ("kd", "temperature", "4")} <= rows
    assert {("crd", "replacement", "true"), ("any", "warmup", "0")} <= rows


def test_describe_prints_the_layers(capsys: pytest.CaptureFixture[str]) -> None:
    code, said, _ = called("describe", "vgg13", "--student", "vgg8", capsys=capsys)
    assert code == 0
    assert "Conv2d-36" in said


def test_all_twelve_methods_in_one_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    names = ["kd", "fitnet", "at", "sp", "vid", "rkd", "pkt", "ab", "ft", "crd", "sskd", "oh"]
    code, said, err = called(
        *("compare", "--teacher", "wrn_10_1", "--student", "resnet8", "--seeds", "1", *FAST),
        *("--methods", *names, "--out", str(tmp_path)),
        capsys=capsys,
    )
    assert (code, err) == (0, "")
    assert all(f"with {name} " in said for name in names)


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['sftn', '--help']\ntry:\n import sftn.cli; sftn.cli.main()\nexcept SystemExit: pass\n"
    )
    code += "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
    assert all(name in asked.stdout for name in COMMANDS)


def test_no_command_is_help_and_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    code, said, _ = called(capsys=capsys)
    assert code == 0
    assert all(name in said for name in COMMANDS)
    assert called("--version", capsys=capsys) == (0, f"sftn {sftn.__version__}\n", "")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Stopped(signal.SIGINT), 130),
        (Stopped(signal.SIGTERM), 143),
        (KeyboardInterrupt(), 130),
        (FloatingPointError(), 1),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(what: str) -> None:
        raise error

    monkeypatch.setattr("sftn.cli.commands.list.list_names", end)
    found, _, err = called("list", "data", capsys=capsys)
    assert found == code
    assert err.startswith("sftn: ")
    assert err.count("\n") == 1


def test_sigterm_saves_and_the_same_command_resumes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sftn.cli", "train-teacher", "--teacher", "resnet8", "--standard"]
    command += ["--limit", "400", "--epochs", "6", "--precision", "float32", "--out", str(tmp_path)]
    command += ["--checkpoint-seconds", "1000"]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ)
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("log.jsonl")) or not any(p.read_text() for p in tmp_path.rglob("log.jsonl")):
        assert time.monotonic() < deadline and started.poll() is None  # noqa: PT018
        time.sleep(0.02)
    started.send_signal(signal.SIGTERM)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 143, err
    assert err.count("\n") == 1
    assert len(list(tmp_path.rglob("checkpoint.safetensors"))) == 1
    assert not list(tmp_path.rglob("result.json"))
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "resumes after epoch" in finished.stdout
    (log,) = tmp_path.rglob("log.jsonl")
    assert [json.loads(line)["epoch"] for line in log.read_text().splitlines()] == [1, 2, 3, 4, 5, 6]


def test_several_students_and_one_that_the_teacher_never_met(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, said, err = called(
        *("compare", "--teacher", "wrn_10_1", "--student", "resnet8", "wrn_10_2", "--unknown", "resnet14"),
        *("--seeds", "1", *FAST, "--out", str(tmp_path)),
        capsys=capsys,
    )
    assert (code, err) == (0, "")
    assert all(f"student {name} with kd" in said for name in ("resnet8", "wrn_10_2", "resnet14"))
    assert len(list(tmp_path.glob("wrn_10_1-for-resnet8+wrn_10_2-*/result.json"))) == 1
    assert len(list(tmp_path.glob("resnet14-kd-from-wrn_10_1-for-resnet8+wrn_10_2-*/result.json"))) == 1


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--align", "1"], "STUDENT_STAGE"),
        (["--align", "4:1"], "stage 4"),
        (["--align", "2:1", "1:2"], "forwards"),
        (["--align", "1:1", "--student", "resnet8", "resnet14"], "one student"),
        (["--frozen-stages", "9"], "frozen stages"),
        (["--backbone-rate", "-1"], "backbone_rate"),
    ],
)
def test_wrong_alignments_and_fine_tuning_are_one_line(
    options: list[str], word: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert word in refusal("compare", *options, *FAST, "--out", str(tmp_path), capsys=capsys)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_alignment_changes_the_branches(capsys: pytest.CaptureFixture[str]) -> None:
    _, said, _ = called("describe", "resnet8", "--student", "resnet14", "--align", "1:2", "3:3", capsys=capsys)
    assert "T^1" in said
    assert not re.search(r"(?<!_)T\^2", said)
