"""Tables and figures that need measurements on their runs: declared, reproduced, reported."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from sftn.errors import InputError
from sftn.experiments import measure
from sftn.experiments.collect import Section
from sftn.experiments.measured_table import MeasuredSection, measured_sections
from sftn.experiments.metrics import RESULT, Measured
from sftn.experiments.paper import TABLES
from sftn.experiments.paper.published import measured as printed_numbers
from sftn.experiments.paper.published import rows
from sftn.networks import NETWORKS
from sftn.report import writer
from sftn.runs import measurements as records
from sftn.runs.folder import DONE, Entry, RunFolder
from sftn.runtime.device import make_fabric
from sftn.tasks.recipes import OBJECTIVES
from tests.support import made_runs as made
from tests.support import tiny
from tests.support.command import called, refusal
from tests.support.reports import reported

ALL = [entry for entry in TABLES.values() if isinstance(entry, Measured)]
SMALL = ["--smoke", "--seeds", "1", "--timing-seconds", "0", "--precision", "float32", "--device", "cpu", "--jobs", "1"]


@pytest.mark.parametrize("which", ALL, ids=lambda which: which.name)
def test_every_printed_number_has_a_place_and_every_place_its_numbers(which: Measured) -> None:
    grid = which.grid
    assert {name for pair in grid.pairs for name in (pair.teacher, pair.student)} <= set(NETWORKS)
    assert set(grid.methods) <= set(OBJECTIVES)
    assert len({(q.source, q.name, q.role) for q in which.quantities}) == len(which.quantities)
    page = MeasuredSection(which, Section(grid, None, 3, {}), which.quantities, {})
    shown = [side.printed for pair in grid.pairs for line in page.lines(pair) for side in line.sides.values()]
    numbers = [printed for printed in shown if printed is not None]
    if grid.published:
        cells = {cell for pair in grid.pairs for cell in grid.cells(pair)}
        assert {cell for cell, _ in printed_numbers(grid.published)} <= cells
        assert len(numbers) == len(rows(grid.published))
    else:
        assert numbers == []


def test_printed_gains_are_those_of_the_text() -> None:
    found = {which.name: dict(which.printed_gains) for which in ALL if which.printed_gains}
    assert found == {"table12": {"on stl10, %": 4.71, "on tiny-imagenet, %": 6.07}}


def test_similarity_is_measured_once_and_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = ["reproduce", "table19", *SMALL, "--methods", "kd", "--out", str(tmp_path)]
    code, said, err = called(*run, capsys=capsys)
    assert (code, err) == (0, "")
    assert "measured on 100 of 1,000 test images" in said
    assert said.count("similarity, seed 0") == 2
    files = sorted(tmp_path.glob("*/analysis-similarity.json"))
    assert len(files) == 2
    before = [path.stat().st_mtime_ns for path in files]
    code, said, err = called(*run, capsys=capsys)
    assert (code, err) == (0, "")
    assert "similarity, seed 0" not in said
    assert "similarity of 2 networks, 2 done" in said
    assert [path.stat().st_mtime_ns for path in files] == before

    code, said, err = called("report", "table19", "--out", str(tmp_path), capsys=capsys)
    assert (code, err) == (0, "")
    page = (tmp_path / "report-table19" / "report.html").read_text()
    assert "SMOKE TEST" in page
    assert "Not measured as in the paper (similarity): measured on 100 of 1,000 test images" in page
    with open(tmp_path / "report-table19" / "report.csv") as file:
        table = {(row["quantity"], row["teacher_training"]): row["value"] for row in csv.DictReader(file)}
    for path in files:
        record = json.loads(path.read_text())
        assert f"{record['numbers']['kl']:.3f}" in page
        assert f"{record['numbers']['agreement']:.2f}" in page
        assert str(record["numbers"]["cka"]) in table.values()

    record["numbers"]["kl"] = 0.0
    files[-1].write_text(json.dumps(record))
    assert "remove it to measure again" in refusal(*run, capsys=capsys)
    code, said, _ = called("report", "table19", "--out", str(tmp_path), capsys=capsys)
    assert code == 0
    assert "was edited" in said
    assert "1 run is finished but not measured" in said


def test_entropy_and_curves_of_the_same_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("table13", "figure4", "figure5"):
        code, _, err = called("reproduce", name, *SMALL, "--out", str(tmp_path), capsys=capsys)
        assert (code, err) == (0, "")
    assert len(list(tmp_path.glob("*/result.json"))) == 5
    assert len(list(tmp_path.glob("*/analysis-entropy.json"))) == 4
    assert len(writer.report(["table13", "figure4", "figure5"], tmp_path)) == 3
    for name, row in (("table13", "teacher's entropy on training"), ("figure5", "KL in training, last epoch")):
        page = (tmp_path / f"report-{name}" / "report.md").read_text()
        assert row in page
        assert "not run" not in page.split("### wrn_10_1")[1]


@pytest.mark.parametrize(("name", "files"), [("table11", 2), ("table12", 10)])
@pytest.mark.slow
def test_corruption_and_transfer(name: str, files: int, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, said, err = called("reproduce", name, *SMALL, "--out", str(tmp_path), capsys=capsys)
    assert (code, err) == (0, "")
    assert "NOT measured as in the paper" in said
    assert len(list(tmp_path.glob("*/analysis-*.json"))) == files
    folder = reported([name], tmp_path)
    assert "not run" not in (folder / "report.md").read_text().split("### wrn_10_1")[1]


def test_ours_stand_beside_theirs(tmp_path: Path) -> None:
    which = TABLES["table19"]
    assert isinstance(which, Measured)
    which = replace(which, grid=replace(which.grid, pairs=which.grid.pairs[:1], methods=("kd", "sp")))
    for item in made.table(tmp_path, which.grid):
        if item.cell.role == "student":
            reading = records.Reading({"test_images": 9, "of": 9}, {"kl": 0.5, "cka": 0.9, "agreement": 80.0}, {})
            records.write(RunFolder(tmp_path / item.run.folder).inspect(), "similarity", reading)
    (page,) = measured_sections(which, tmp_path)
    assert page.warnings() == []
    line = next(line for line in page.lines(which.grid.pairs[0]) if line.label == "kd, KL, nats")
    assert [side.last.text() for side in line.sides.values()] == ["0.500 ± 0.000 (3)"] * 2
    assert [str(side.printed) for side in line.sides.values()] == ["1.10", "0.47"]
    assert "over 2 cells, printed" in page.gains()[0]


def test_other_settings_are_never_mixed_silently(tmp_path: Path) -> None:
    which = TABLES["table19"]
    assert isinstance(which, Measured)
    planned = [item for item in made.table(tmp_path, which.grid, seeds=1) if item.cell.role == "student"]
    for number, item in enumerate(planned[:2]):
        reading = records.Reading({"test_images": 9 - number, "of": 9}, {"kl": float("nan")}, {})
        records.write(RunFolder(tmp_path / item.run.folder).inspect(), "similarity", reading)
    (page,) = measured_sections(which, tmp_path)
    assert any("2 different ways" in warning for warning in page.warnings())
    assert any("8 of 9 test images" in warning for warning in page.warnings())
    assert {values.numbers["kl"] for values in page.readings.values()} == {None}


def test_what_is_of_another_run_is_refused(tmp_path: Path) -> None:
    run = tiny.run(tiny.dataset())
    entry = Entry(RunFolder(tmp_path), DONE, run, {"weights_sha256": "a"})
    records.write(entry, "entropy", records.Reading({}, {"x": 1.0}, {}))
    assert records.read(entry, "entropy") == records.Reading({}, {"x": 1.0}, {})
    for other in (replace(entry, run=tiny.run(tiny.dataset(), seed=1)), replace(entry, result={"weights_sha256": "b"})):
        with pytest.raises(InputError, match="of another run"):
            records.read(other, "entropy")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["table12", "--data", "digits", "--to", "nothing"], "nothing"),
        (["table12", "--data", "digits", "--to", "folder:/nowhere"], "nowhere"),
        (["table19", "--smoke", "--to", "digits"], "--to is for table12"),
        (["table19", "--smoke", "--test-images", "1"], "at least 10"),
        (["table17", "--smoke", "--test-images", "50"], "leave --to and --test-images out"),
    ],
)
def test_contradictions_are_one_line_before_anything_is_trained(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert words in refusal("reproduce", *arguments, "--out", str(tmp_path), capsys=capsys)
    assert not list(tmp_path.iterdir())


def test_only_quantities_that_a_record_has_are_asked_for() -> None:
    data = tiny.dataset()
    for which in ALL:
        if which.measure in ("similarity", "entropy"):
            (tool,) = measure.instruments(which, data, Path("unused"), images=10)
            numbers, _ = tool.apply(tiny.network(), tiny.network(), make_fabric("cpu", "float32"))
            assert {q.name for q in which.quantities if q.source != RESULT} <= set(numbers)
