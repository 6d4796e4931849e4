"""Runs kept as one file each: the same pages come from them, and nothing else is believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftn.cli import main
from sftn.errors import InputError
from sftn.experiments.paper import TABLES
from sftn.experiments.studies import STUDIES
from sftn.experiments.table import Table
from sftn.runs import archive
from sftn.runs import measurements as records
from sftn.runs.folder import DONE, RunFolder, scan
from sftn.runs.runner import train
from sftn.runs.trained import verify
from sftn.storage.records import digest
from sftn.tasks.recipes import objective
from tests.support import made_runs as made
from tests.support import tiny
from tests.support.command import runs_command
from tests.support.conditions import DEMO
from tests.support.reports import reported

DATA = tiny.dataset()


def trained(out: Path) -> list[RunFolder]:
    """A teacher and its student, with a log as training leaves it."""
    teacher = tiny.run(DATA, "wide", epochs=2)
    student = tiny.run(DATA, "tiny", epochs=3, teacher=teacher, objective=objective("fitnet"))
    for run in (teacher, student):
        train(run, DATA, out)
    return [RunFolder(out / run.folder) for run in (teacher, student)]


@pytest.fixture
def study(tmp_path: Path) -> tuple[Path, Path]:
    """A study's made results, and the same kept."""
    runs, results = tmp_path / "runs", tmp_path / "results"
    for item in made.table(runs, STUDIES["branches"].grid, DEMO, seeds=5):
        rows = [
            {"phase": "distil", "epoch": n, "kd": 1 / n, **({"test_accuracy": 70.0 - 1 / n} if n % 2 else {})}
            for n in range(1, 81)
        ]
        (runs / item.run.folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    runs_command("keep", ("branches",), runs, to=results)
    return runs, results


def edited(path: Path, change: Callable[[dict[str, Any]], object], sealed: bool) -> None:
    record = json.loads(path.read_text())
    change(record)
    if sealed:
        record.pop("sha256", None)
        record["sha256"] = digest(record)
    path.write_text(json.dumps(record))


def test_the_same_pages_come_from_what_is_kept(study: tuple[Path, Path]) -> None:
    _, results = study
    assert len(list(results.glob("branches/*.json"))) == 40
    assert not list(results.rglob("*.safetensors"))
    for name in ("branches", "table17"):
        for out in study:
            reported([name], out)
        pages = [(out / f"report-{name}" / "report.md").read_bytes() for out in study]
        assert pages[0] == pages[1]
    drawn = [sorted(path.name for path in (out / "report-branches").iterdir()) for out in study]
    assert drawn[0] == drawn[1]


@pytest.mark.usefixtures("tiny_networks")
def test_a_kept_run_is_all_that_its_folder_says(tmp_path: Path) -> None:
    runs, results = tmp_path / "runs", tmp_path / "results"
    for folder in trained(runs):
        reading = records.Reading({"test_images": 9, "of": 9}, {"kl": 0.1 + 0.2}, {"accuracy": {"fog": [1.5]}})
        records.write(folder.inspect(), "similarity", reading)
        path, written = archive.keep(folder.inspect(), results, "own")
        assert written
        assert path == results / "own" / f"{folder.name}.json"
        assert path.stat().st_size < 20_000
        assert archive.keep(folder.inspect(), results, "elsewhere") == (path, False)
    with archive.unpacked(results) as out:
        assert [entry.folder.name for entry in scan(out)] == sorted(path.name for path in runs.iterdir())
        for entry in scan(out):
            theirs = RunFolder(runs / entry.folder.name).inspect()
            assert (entry.state, entry.run, entry.result) == (DONE, theirs.run, theirs.result)
            assert entry.folder.history() == theirs.folder.history()
            assert [list(row) for row in entry.folder.history()] == [list(row) for row in theirs.folder.history()]
            assert records.read(entry, "similarity") == reading
    assert not out.exists()


def test_kept_runs_are_listed_and_shown(study: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    _, results = study
    capsys.readouterr()
    runs_command("list", (), results)
    said = capsys.readouterr().out
    assert "40 done" in said
    assert "done (without weights)" in said.replace("\n", " ")
    name = next(results.glob("branches/resnet8-kd*.json")).stem
    runs_command("show", (name[-12:],), results)
    said = capsys.readouterr().out
    assert f"{name}: done" in said.replace("\n", "")
    assert '"milestones"' in said
    assert '"weights_sha256"' in said


def test_keeping_again_writes_what_changed(study: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    runs, results = study
    capsys.readouterr()
    runs_command("keep", ("branches",), runs, to=results)
    assert "40 runs kept" in (said := capsys.readouterr().out)
    assert "0 written now" in said
    entry = next(one for one in scan(runs) if one.run is not None and one.run.teacher is not None)
    assert entry.run is not None
    reading = records.Reading({"test_images": 9, "of": 9}, {"kl": 1.0}, {})
    records.write(entry, "similarity", reading)
    runs_command("keep", ("branches", entry.run.id), runs, to=results)
    assert "1 written now" in (said := capsys.readouterr().out)
    assert "1 run kept" in said
    assert len(list(results.rglob("*.json"))) == 40
    records.path(entry.folder, "similarity").write_text("{}")
    with pytest.raises(InputError, match="was edited"):
        runs_command("keep", ("branches",), runs, to=results)


@pytest.mark.parametrize(
    ("change", "sealed"),
    [
        (lambda record: record["result"].update(accuracy=99.0), False),
        (lambda record: record["log"].update(kd=[1.0]), True),
        (lambda record: record.update(log=[]), True),
        (lambda record: record.update(format=2), True),
        (lambda record: record.pop("run"), True),
        (lambda record: record["run"].update(id="0" * 12), True),
        (lambda record: record.update(measured={"../../../x": {}}), True),
    ],
)
def test_what_was_edited_or_is_foreign_is_one_line(
    change: Callable[[dict[str, Any]], object],
    sealed: bool,
    study: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, results = study
    path = next(results.glob("branches/*.json"))
    edited(path, change, sealed)
    before = sorted(results.parent.rglob("*"))
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["runs", "list", "--out", str(results)])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "is not a kept run, or was edited" in err
    assert sorted(results.parent.rglob("*")) == before


def test_a_sealed_lie_is_still_checked_as_any_run(study: tuple[Path, Path]) -> None:
    _, results = study
    path = next(results.glob("branches/*.json"))
    edited(path, lambda record: record["result"].update(accuracy=101.0), True)
    with archive.unpacked(results) as out:
        (broken,) = (entry for entry in scan(out) if entry.state != DONE)
        assert "was edited" in broken.reason


def test_what_is_too_large_or_no_json_is_refused(study: tuple[Path, Path]) -> None:
    _, results = study
    path = next(results.glob("branches/*.json"))
    for content in (b"{" + b" " * 2**24 + b"}", b"[" * 10**5, b"\xff"):
        path.write_bytes(content)
        with pytest.raises(InputError), archive.unpacked(results):
            pass


@pytest.mark.usefixtures("tiny_networks")
def test_a_run_kept_with_its_weights_is_one_to_work_with(tmp_path: Path) -> None:
    runs, results = tmp_path / "runs", tmp_path / "results"
    teacher, student = trained(runs)
    runs_command("keep", (), runs, to=results, networks=(teacher.name, student.name))
    there = RunFolder(results / archive.NETWORKS / student.name)
    assert verify(there, DATA, "cpu") == []
    assert there.history() == student.history()
    student.weights.write_bytes(b"torn")
    with pytest.raises(InputError, match="is not the file that the result was measured on"):
        archive.keep_network(student.inspect(), results)


def test_large_weights_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item, *_ = made.table(tmp_path, STUDIES["branches"].grid, DEMO, seeds=1)
    monkeypatch.setattr(archive, "LARGEST", 3)
    with pytest.raises(InputError, match="larger than"):
        archive.keep_network(RunFolder(tmp_path / item.run.folder).inspect(), tmp_path / "results")


def test_only_finished_runs_are_kept(tmp_path: Path) -> None:
    item, *_ = made.table(tmp_path, STUDIES["branches"].grid, DEMO, seeds=1)
    (tmp_path / item.run.folder / "result.json").unlink()
    with pytest.raises(InputError, match="only finished runs are kept"):
        runs_command("keep", (item.run.folder,), tmp_path, to=tmp_path / "results")
    with pytest.raises(InputError, match="name the runs to keep"):
        runs_command("keep", (), tmp_path, to=tmp_path / "results")


def test_runs_that_lie_beside_kept_ones_are_read_too(study: tuple[Path, Path]) -> None:
    runs, results = study
    which = TABLES["table14"]
    assert isinstance(which, Table)
    made.table(results, which, seeds=1)
    with archive.unpacked(results) as out:
        assert len(scan(out)) == 40 + len(list(results.glob("*/run.json")))
    with archive.unpacked(runs) as out:
        assert out == runs
