from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sftn.errors import InputError
from sftn.runs.folder import (
    BROKEN,
    DONE,
    INTERRUPTED,
    RUNNING,
    WAITING,
    RunFolder,
    find,
    remove,
    scan,
)
from sftn.runs.runner import train
from sftn.runs.trained import verify
from sftn.storage.lease import Lease
from tests.support import tiny
from tests.support.command import runs_command

DATA = tiny.dataset()
pytestmark = pytest.mark.usefixtures("tiny_networks")


def done(out: Path, seed: int = 0) -> RunFolder:
    run = tiny.run(DATA, epochs=1, seed=seed)
    train(run, DATA, out)
    return RunFolder(out / run.folder)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_every_state_is_told_apart(tmp_path: Path) -> None:
    finished = done(tmp_path)
    begun, waiting, held = (RunFolder(tmp_path / tiny.run(DATA, seed=seed).folder) for seed in (1, 2, 3))
    for seed, folder in ((1, begun), (2, waiting), (3, held)):
        folder.write(tiny.run(DATA, seed=seed))
    (begun.path / "checkpoint.safetensors").write_bytes(b"")
    (tmp_path / "report-table17").mkdir()
    with Lease(held.path):
        states = {entry.folder: entry.state for entry in scan(tmp_path)}
        assert states == {finished: DONE, begun: INTERRUPTED, waiting: WAITING, held: RUNNING}
        with pytest.raises(InputError, match="being trained by process"):
            remove([finished, held])
    assert finished.path.exists()
    remove([held])
    assert not held.path.exists()


def test_what_a_kill_at_the_very_end_leaves_goes_when_the_run_is_asked_for_again(tmp_path: Path) -> None:
    folder = done(tmp_path)
    kept = sorted(folder.path.iterdir())
    for name in ("checkpoint.safetensors", "checkpoint.previous.safetensors", ".result.json.ab.tmp", "lease.000001"):
        (folder.path / name).write_bytes(b"x")
    done(tmp_path)
    assert sorted(folder.path.iterdir()) == kept


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("result.json", {"format": 0}, "another run or format"),
        ("result.json", {"id": "0" * 12}, "another run or format"),
        ("result.json", {"accuracy": 101.0}, "edited"),
        ("result.json", {"accuracy": "much"}, "has an invalid accuracy"),
        ("run.json", {"format": 0}, "another format"),
        ("run.json", {"seed": 5}, "edited"),
        ("run.json", {"schedule": None}, "not a record"),
    ],
)
def test_foreign_edited_and_older_files_are_broken_and_left_alone(
    file: str, changes: dict[str, object], words: str, tmp_path: Path
) -> None:
    folder = done(tmp_path)
    edit(folder.path / file, **changes)
    before = {path: path.read_bytes() for path in folder.path.iterdir()}
    entry = folder.inspect()
    assert entry.state == BROKEN
    assert words in entry.reason
    assert "\n" not in entry.reason
    if file == "run.json":
        with pytest.raises(InputError):
            train(tiny.run(DATA, epochs=1), DATA, tmp_path)
    assert {path: path.read_bytes() for path in folder.path.iterdir()} == before


def test_verify_reads_hashes_and_evaluates_again(tmp_path: Path) -> None:
    folder = done(tmp_path)
    assert verify(folder, DATA) == []
    edit(folder.result_json, accuracy=99.0)
    (said,) = verify(folder, DATA)
    assert "recorded 99.0000 % but scores" in said
    other = done(tmp_path, seed=1)
    other.weights.write_bytes(folder.weights.read_bytes())
    assert any("is not the file" in line for line in verify(other, DATA))
    other.weights.write_bytes(b"torn")
    assert len(verify(other, DATA)) == 2
    assert "images are not those" in verify(folder, tiny.dataset(seed=1))[0]


def test_verify_wants_the_teacher_too(tmp_path: Path) -> None:
    from sftn.tasks.recipes import objective

    teacher = tiny.run(DATA, "wide", epochs=1)
    student = tiny.run(DATA, epochs=1, teacher=teacher, objective=objective("kd"))
    for run in (teacher, student):
        train(run, DATA, tmp_path)
    assert verify(RunFolder(tmp_path / student.folder), DATA) == []
    remove([RunFolder(tmp_path / teacher.folder)])
    assert "its teacher" in verify(RunFolder(tmp_path / student.folder), DATA)[0]


def test_runs_are_found_by_path_folder_and_id(tmp_path: Path) -> None:
    folder = done(tmp_path)
    run = folder.run()
    assert find(str(folder), tmp_path) == find(folder.name, tmp_path) == find(run.id[:6], tmp_path) == folder
    with pytest.raises(InputError, match="unknown run"):
        find("tinny-tiny", tmp_path)
    with pytest.raises(InputError, match="cannot read"):
        find("x", tmp_path / "nowhere")


def test_the_command_lists_shows_and_removes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = done(tmp_path)
    other = RunFolder(tmp_path / tiny.run(DATA, seed=1).folder)
    other.write(tiny.run(DATA, seed=1))
    edit(other.run_json, format=0)
    runs_command("list", (), tmp_path, None, "cpu")
    said = capsys.readouterr().out
    assert "1 done, 1 broken" in said
    assert "broken: " in said
    runs_command("show", (folder.name,), tmp_path, None, "cpu")
    said = capsys.readouterr().out
    assert '"weights_sha256"' in said
    assert '"milestones"' in said
    with pytest.raises(InputError, match="name the runs to"):
        runs_command("rm", (), tmp_path, None, "cpu")
    runs_command("rm", (folder.name,), tmp_path, None, "cpu")
    assert not folder.path.exists()


def test_the_command_verifies_all_and_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sftn.data.load import load
    from sftn.spec.run import Data

    digits = load("digits", limit=20)
    data = Data("digits", digits.identity, 20)
    run = replace(tiny.run(DATA, "tiny", epochs=1), data=data)
    train(run, digits, tmp_path)
    runs_command("verify", (), tmp_path, None, "cpu")
    assert "1 of 1 runs passed verification" in capsys.readouterr().out
    edit(tmp_path / run.folder / "result.json", accuracy=1.0)
    with pytest.raises(SystemExit) as stop:
        runs_command("verify", (), tmp_path, None, "cpu")
    assert stop.value.code == 1
    assert "FAILED" in capsys.readouterr().out


def test_a_run_is_not_removed_under_its_owner_where_clocks_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny.run(DATA)
    folder = RunFolder(tmp_path / run.folder)
    folder.write(run)
    owner = {"token": "x", "host": "elsewhere", "place": "another boot", "pid": 7, "born": "1", "seconds": 100.0}
    (folder.path / "lease.000001").write_text(json.dumps(owner))
    later = time.time() + 10_000
    monkeypatch.setattr(time, "time", lambda: later)
    assert folder.inspect().state == WAITING, "by this machine's clock"
    with pytest.raises(InputError, match="being trained by process 7 on elsewhere"):
        remove([folder])
    os.utime(folder.path / "lease.000001", (0, 0))
    remove([folder])
    assert not folder.path.exists()


def test_a_number_that_does_not_hold_is_followed_by_what_differs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = done(tmp_path)
    caplog.clear()
    recorded = json.loads(folder.result_json.read_text())["environment"]
    edit(folder.result_json, accuracy=99.0)
    assert len(verify(folder, DATA, "cpu")) == 1
    assert caplog.messages == []
    edit(folder.result_json, environment=recorded | {"threads": 2, "torch": "1.0", "numpy": "0.9"})
    assert len(verify(folder, DATA, "cpu")) == 1, "it is no fault of its own"
    (note,) = caplog.messages
    assert "measured elsewhere: torch 1.0" in note
    assert "numpy 0.9 (here " in note
    assert "threads" not in note, "it was evaluated with the recorded number"


def test_what_diverged_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tiny.run(DATA)
    folder = RunFolder(tmp_path / run.folder)
    folder.write(run)
    folder.diverged_json.write_text('{"phase": "train", "terms": {"kd": "nan"}}')
    runs_command("list", (), tmp_path, None, "cpu")
    assert "(diverged)" in capsys.readouterr().out.replace("\n", " ")
    runs_command("show", (folder.name,), tmp_path, None, "cpu")
    assert '"kd": "nan"' in capsys.readouterr().out
    folder.diverged_json.write_text("[" * 10**5)
    runs_command("show", (folder.name,), tmp_path, None, "cpu")
    assert "is not valid JSON" in capsys.readouterr().out
