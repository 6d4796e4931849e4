from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from sftn.errors import InputError
from sftn.runs.folder import RunFolder
from sftn.spec.jobs import TrainTeacher, asked
from sftn.spec.run import Friendly, Run, Weights
from sftn.storage.json_files import sha256
from sftn.tasks.recipes import objective
from tests.support import tiny

DATA = tiny.dataset()
TEACHER = tiny.run(DATA, "wide", friendly=Friendly(student="tiny", branches=(1,)))
STUDENT = tiny.run(DATA, teacher=TEACHER, objective=objective("crd+kd:0.5"), alignment=((0, 0), (1, 2)))


@pytest.mark.parametrize(
    "run",
    [
        tiny.run(DATA),
        TEACHER,
        STUDENT,
        replace(STUDENT, teacher=Weights("wide", "ab", "x")),
        replace(STUDENT, objective=objective("ft(factors=whole,translator_norm=false):500")),
        replace(TEACHER, friendly=Friendly(student="tiny", branch_logits="std")),
        replace(STUDENT, further=(replace(TEACHER, seed=1), Weights("wide", "ab", "x")), ensemble="ca"),
    ],
)
def test_a_record_comes_back_as_it_was(run: Run, tmp_path: Path) -> None:
    RunFolder(tmp_path / run.folder).write(run)
    found = RunFolder(tmp_path / run.folder).run()
    assert found == run
    assert found.id == run.id


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"network": "wide"},
        {"precision": "bf16"},
        {"schedule": replace(STUDENT.schedule, weight_decay=0.0)},
        {"objective": objective("crd")},
        {"teacher": replace(TEACHER, seed=1)},
        {"teacher": None},
        {"further": (replace(TEACHER, seed=1),)},
        {"ensemble": "ca"},
        {"data": replace(STUDENT.data, fingerprint="other")},
        {"alignment": None},
    ],
)
def test_the_id_changes_with_everything_that_changes_the_outcome(change: dict[str, object]) -> None:
    assert replace(STUDENT, **change).id != STUDENT.id  # type: ignore[arg-type]


def test_where_a_file_lies_is_not_part_of_the_id() -> None:
    here, there = (replace(STUDENT, teacher=Weights("wide", "ab", path)) for path in ("here", "there"))
    assert here.id == there.id
    assert replace(here, teacher=Weights("wide", "cd", "here")).id != here.id


def test_ids_do_not_drift() -> None:
    """Folders of runs outlive versions: a changed id would train everything again."""
    assert tiny.run(DATA).id == "b4bebfdb7d3f"
    assert TEACHER.id == "e75d17bfeaed"


def test_the_option_of_standardised_branches_reaches_the_record() -> None:
    branches = asked(TrainTeacher, {"teacher": "wide", "student": "tiny", "branch_logits": "std"}).branches
    assert Friendly.to(["tiny"], branches) == Friendly(student="tiny", branch_logits="std")


def test_standardised_logits_of_branches_are_part_of_the_id_and_plain_ones_are_not() -> None:
    plain, std = (tiny.run(DATA, friendly=Friendly(student="tiny", branch_logits=how)) for how in ("plain", "std"))
    assert plain.id == tiny.run(DATA, friendly=Friendly(student="tiny")).id != std.id


def test_a_name_says_what_was_trained() -> None:
    assert STUDENT.name == "tiny-crd+kd:0.5-from-wide-for-tiny"
    assert ":" not in STUDENT.folder
    assert "/" not in replace(STUDENT, data=replace(STUDENT.data, name="folder:/a/b")).folder


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": 1}', "nonsense", "[" * 100_000, '{"format": 1, "network": 3, "data": []}']
)
def test_foreign_records_are_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError) as caught:
        RunFolder(tmp_path).run()
    assert "\n" not in str(caught.value)


def test_an_edited_record_is_noticed(tmp_path: Path) -> None:
    RunFolder(tmp_path).write(STUDENT)
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seed": 7}))
    with pytest.raises(InputError, match="edited"):
        RunFolder(tmp_path).run()
    with pytest.raises(InputError):
        RunFolder(tmp_path).write(STUDENT)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot create"):
        RunFolder(tmp_path / "file" / "run").write(STUDENT)


def test_a_file_that_cannot_be_hashed_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    assert sha256(tmp_path / "x") == hashlib.sha256(b"x").hexdigest()
    with pytest.raises(InputError, match=r"cannot read .*nothing"):
        sha256(tmp_path / "nothing")
