from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from sftn.cli import main, parse
from sftn.errors import InputError
from sftn.storage.row_store import RowStore


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "sftn" / "teacher-outputs"


def store(folder: Path, teacher: str, places: int = 2000) -> RowStore:
    about = {"teacher": teacher, "data": "digits", "field": "logits", "dtype": "bfloat16"}
    return RowStore(folder, {"of": teacher}, about, places, 16384, room=2**30)


def test_stores_are_listed_and_cleared_but_for_those_in_use(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["runs", "cache"])
    assert capsys.readouterr().out == f"no teacher's outputs are kept in {folder}\n"
    used, free = store(folder, "resnet20"), store(folder, "wrn[/b]\x1b[31m").path
    used.put(range(500), np.ones((500, 16384), np.uint8))
    (folder / "old.rows").write_text("sftn rows 0\n")
    os.utime(free, (10**9, 10**9))
    os.utime(folder / "old.rows", (0, 0))
    main(["runs", "cache"])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "teacher images outputs GiB filled last used"
    assert lines[1].startswith("damaged, or of another version: old.rows ? ? 0.00 0 %")
    assert lines[2].startswith("wrn[/b]\\x1b[31m digits logits, bfloat16 0.03 0 % 2001-09-")
    assert lines[3].startswith("resnet20 digits logits, bfloat16 0.03 25 % 20")
    assert lines[3].endswith(", in use")
    assert lines[4:] == [f"0.06 GiB in {folder}"]
    main(["runs", "cache", "--clear"])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "Removed: 2 stores, 0.03 GiB"
    assert lines[-1] == f"0.03 GiB in {folder}"
    assert [path.name for path in folder.glob("*.rows")] == [used.path.name]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["runs", "list", "--clear"], "--clear is for sftn runs cache"),
        (["runs", "cache", "resnet20"], "takes no runs"),
        (["compare", "--teacher-cache", "maybe"], "--teacher-cache takes a number or off, not 'maybe'"),
        (["compare", "--teacher-cache"], "--teacher-cache needs a value"),
        (["train-teacher", "--teacher", "resnet8", "--standard", "--teacher-cache", "-2"], "give GiB, or off"),
    ],
)
def test_wrong_input_is_one_line(
    arguments: list[str], word: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--out", str(tmp_path / "runs")])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert word in said
    assert said.count("\n") == 1
    assert not list(tmp_path.rglob("run.json"))


@pytest.mark.parametrize(("given", "gib"), [("off", 0.0), ("0", 0.0), ("0.5", 0.5), ("8", 8.0)])
def test_room_is_a_number_or_off(given: str, gib: float) -> None:
    assert parse(["demo", "--teacher-cache", given]).execution.cache_gib == gib
    assert parse(["demo"]).execution.cache_gib == 2.0
    with pytest.raises(InputError):
        parse(["demo", "--teacher-cache", "on"])
