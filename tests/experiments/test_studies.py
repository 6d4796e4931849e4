"""Our own studies: their runs, their own conditions, the page; and the same page from what is kept of them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from sftn.cli import options
from sftn.cli.commands import train
from sftn.errors import InputError
from sftn.experiments.collect import sections
from sftn.experiments.grid import Conditions, Planned, grid, part
from sftn.experiments.paper import TABLES
from sftn.experiments.studies import STUDIES, entry, parts
from sftn.experiments.studies.published import published
from sftn.experiments.table import FRIENDLY, STANDARD
from sftn.networks import NETWORKS
from sftn.report.figures import tables
from sftn.runs import measurements as records
from sftn.runs.folder import RunFolder
from sftn.spec.run import Data
from sftn.spec.schedule import Schedule
from sftn.spec.training import Training
from sftn.tasks.recipes import objective
from tests.support import made_runs as made
from tests.support.command import called
from tests.support.conditions import DEMO
from tests.support.reports import reported

CIFAR = Conditions(Data("cifar100", "0123456789abcdef", classes=20), Schedule(epochs=20), "bf16")
LONGER = Conditions(Data("cifar100", "0123456789abcdef", 2500, 20), Schedule(epochs=80), "bf16")
PATIENT = replace(DEMO, schedule=Schedule(epochs=400, batch=32))
OWN = {name: CIFAR if study.grid.data == "cifar100" else DEMO for name, study in STUDIES.items()}
TEN = replace(CIFAR, data=replace(CIFAR.data, classes=10), schedule=Schedule(epochs=60))
OWN |= {"longer": LONGER, "patient": PATIENT, "modern": made.PAPER}
OWN |= {"horizon60": TEN, "horizon240": replace(TEN, schedule=Schedule(epochs=240))}


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_names_what_there_is_and_deviates_from_nothing_of_its_own(name: str) -> None:
    table = STUDIES[name].grid
    assert name == table.name
    assert name not in TABLES
    assert {one for pair in table.pairs for one in (pair.teacher, pair.student)} <= set(NETWORKS)
    assert all(objective(table.objective(pair, method)) for pair in table.pairs for method in table.methods)
    assert (table.published, table.source) == ("", "study")
    assert OWN[name].deviations(table) == []
    for which in STUDIES[name].measured:
        assert which.grid == table
        assert which.quantities
    planned = grid(table, OWN[name], table.seeds)
    assert len({item.run.id for item in planned}) == len(planned)


def test_studies_of_the_digits_share_their_runs() -> None:
    ids = {name: {item.run.id for item in grid(STUDIES[name].grid, DEMO, 5)} for name in STUDIES if OWN[name] is DEMO}
    assert len(ids["digits"]) == 5 * (2 + 1 + 2 * 12)
    assert len(ids["branches"]) == 5 * (2 + 2 * 3)
    assert len(ids["branches"] & ids["digits"]) == 5 * 4  # both branches
    assert len(ids["weights"]) == 5 * (3 + 2 * 8)
    assert len(ids["weights"] & ids["digits"]) == 5 * 5  # λ_R^KL = 3, and the student alone
    assert len(ids["gap"]) == 5 * (1 + 2 * (2 + 4) - 1)  # a second resnet20 alone is the standard teacher
    assert len(ids["gap"] & ids["weights"]) == 5 * 7
    assert len(ids["standardised"]) == 5 * (1 + 1 + 3 + 2 * (1 + 3))
    assert len(ids["standardised"] & ids["weights"]) == 5 * 5  # branches as in the paper, KD


def test_the_demo_shows_runs_of_the_study_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    planned: list[str] = []

    def note(runs: list[Planned], *rest: object, **more: object) -> None:
        planned.extend(item.run.id for item in runs)
        raise InputError("seen")

    monkeypatch.setattr("sftn.experiments.compare.work", note)
    training = Training(epochs=80, batch=32, precision="bf16")
    with pytest.raises(InputError, match="seen"):
        train.demo(options.Demo(training=training, out=tmp_path))
    assert len(planned) == 3 * 5
    assert set(planned) <= {item.run.id for item in grid(STUDIES["weights"].grid, DEMO, 5)}


def test_other_conditions_than_a_studys_own_are_said() -> None:
    table = STUDIES["digits"].grid
    other = Conditions(Data("digits", "x", 100, 5), Schedule(epochs=1, batch=32), "bf16")
    assert other.deviations(table) == [
        "100 training images instead of 200",
        "the first 5 classes only",
        "1 epoch instead of 80",
    ]
    full = Conditions(Data("cifar100", "x"), Schedule(epochs=20), "bf16")
    assert full.deviations(STUDIES["cifar20"].grid) == ["all classes"]
    assert full.deviations(table)[:2] == ["cifar100 instead of digits", "all training images instead of 200"]


def test_the_newer_methods_are_trained_with_the_settings_of_each_pair() -> None:
    table = STUDIES["modern"].grid
    planned = grid(table, made.PAPER, table.seeds)
    assert sum(item.cell.role == "teacher" for item in planned) == 3 * (4 + 8)
    assert len(planned) == 3 * (4 + 8 + 6 + 8 * 2 * 6)
    found = {(str(item.cell.pair), item.cell.method): item.run.objective for item in planned}
    assert found["wrn_40_2:wrn_16_2", "dkd"] == objective("dkd(beta=6)")
    assert found["resnet32x4:resnet8x4", "dkd"] == objective("dkd")
    assert found["vgg13:vgg8", "kd@std"] == objective("kd@std(temperature=3)")
    assert found["resnet32x4:shufflev2", "reviewkd"] == objective("reviewkd:8")
    ids = {item.run.id for name in ("table17", "table18") for item in grid(TABLES[name], made.PAPER, 3)}  # type: ignore[arg-type]
    assert sum(item.run.id in ids for item in planned) == 3 * (4 + 8 + 6 + 8 * 2), "teachers, KD, students alone"


def test_published_numbers_belong_to_a_network_of_the_study_and_say_their_epoch() -> None:
    study = STUDIES["modern"]
    cells = {cell for pair in study.grid.pairs for cell in study.grid.cells(pair)}
    numbers = published(study.published)
    assert {one.cell for one in numbers} <= cells
    assert len({(one.cell, one.epoch, one.source) for one in numbers}) == len(numbers) == 51
    assert all(60 < one.accuracy < 80 and one.epoch in ("last", "best", "not said") and one.source for one in numbers)
    assert all("RandAugment" in one.protocol for one in numbers if one.cell.method == "mlkd")


def test_published_numbers_stand_beside_ours_of_the_same_epoch(tmp_path: Path) -> None:
    study = STUDIES["modern"]
    made.table(tmp_path, part(study.grid, ["resnet32x4:resnet8x4"], ["dkd", "dist", "kd@std"])[0], seeds=3)
    text = (reported(["modern"], tmp_path) / "report.md").read_text()
    assert "| dkd | 76.32 | best | 70.60 ± 0.10 (3) | -5.72 | beta 8 | mdistiller, LSKD READMEs |" in text
    assert "| dist | 76.31 ± 0.19 | not said | 70.10 ± 0.10 (3) | -6.21 | weight 2, T = 4 | DIST_KD README |" in text
    assert "| kd@std | 76.28 | last | 70.10 ± 0.10 (3) | -6.18 | T = 2, weight 9 | LSKD's logs, one run |" in text
    assert "| dkd(beta=6) | 76.23 | best | not run |  | beta 6 | mdistiller, LSKD READMEs |" in text
    assert "| student alone | 72.50 | last | 70.10 ± 0.10 (3) | -2.40 |  | RepDistiller, DIST_KD READMEs |" in text
    assert text.count("What others printed") == 6, "two pairs have no numbers"


@pytest.mark.slow
def test_the_smoke_form_of_the_newer_methods(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    fast = ("--timing-seconds", "0", "--precision", "float32", "--device", "cpu")
    code, said, err = called("reproduce", "modern", "--smoke", "--seeds", "1", *fast, "--out", tmp_path, capsys=capsys)
    assert (code, err) == (0, "")
    assert "All runs of modern are done" in said
    assert len(list(tmp_path.glob("*/result.json"))) == 2 + 1 + 2 * 6
    text = (reported(["modern"], tmp_path) / "report.md").read_text()
    assert "| mlkd | " in text
    assert "not run" not in text


def test_names_stand_for_tables_and_studies() -> None:
    assert entry("digits") is STUDIES["digits"]
    assert [one.measure for one in parts("cifar20")[1]] == ["similarity", "entropy", "corruption", "curves"]
    assert parts("table17") == (TABLES["table17"], ())
    assert parts("table19")[1] == (TABLES["table19"],)
    with pytest.raises(InputError, match="did you mean digits"):
        entry("digitz")


def test_a_study_has_conditions_of_its_own_which_options_change(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plan = ("reproduce", "digits", "--dry-run", "--timing-seconds", "0", "--out", str(tmp_path))
    code, said, err = called(*plan, capsys=capsys)
    assert (code, err) == (0, "")
    assert "Conditions: digits, 200 training images, 80 epochs, batch 32" in said
    assert "Seeds: 0 1 2 3 4." in said
    assert "NOT" not in said
    assert ["teachers", "10", "0", "0", "10"] in [line.split() for line in said.splitlines()]
    assert ["students", "125", "0", "0", "125"] in [line.split() for line in said.splitlines()]
    code, said, _ = called(*plan, "--epochs", "1", "--limit", "100", "--batch", "20", capsys=capsys)
    assert "NOT the study's conditions: 100 training images instead of 200; 1 epoch instead of 80; batch 20" in said
    code, said, _ = called("list", "tables", capsys=capsys)
    assert "studies" in said
    assert all(name in said for name in STUDIES)


def test_what_is_nearest_to_a_study_stands_in_where_nothing_is_its_own(tmp_path: Path) -> None:
    table, other = STUDIES["cifar20"].grid, Conditions(Data("cifar100", "x", 500, 20), Schedule(epochs=1), "bf16")
    made.table(tmp_path, STUDIES["branches"].grid, DEMO, seeds=1)
    made.table(tmp_path, table, other, seeds=1)
    assert [section.conditions for section in sections(table, tmp_path)] == [other]
    made.table(tmp_path, table, CIFAR, seeds=1)
    assert [section.conditions for section in sections(table, tmp_path)] == [CIFAR]


def test_the_page_of_a_study(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    study = STUDIES["weights"]
    planned = made.table(tmp_path, study.grid, DEMO, seeds=5)
    for item in planned:  # the last seed goes the other way
        if item.cell.way == FRIENDLY and item.run.seed == 4:
            made.finish(tmp_path, item.run, 70.0)
    made.table(tmp_path, STUDIES["digits"].grid, CIFAR, seeds=1)  # of the same pair
    _, shown, _ = called("report", "weights", "--out", tmp_path, capsys=capsys)
    folder = tmp_path / "report-weights"
    text = (folder / "report.md").read_text()
    assert text.startswith("# weights: Effect of the branches' weights")
    assert "the paper" not in text
    assert "cifar100" not in text, "runs under other conditions are other studies'"
    assert "| kd, λ_R^KL = 0.3 | 70.20 ± 0.16 | 70.92 ± 0.53 | +0.72 ± 0.63 | 5 | 4 of 5 | 0.062 |" in text
    assert "| student alone | 70.20 ± 0.16 |  |  | 5 |  |  |" in text
    assert "| teacher, λ_R^KL = 1, training accuracy | 90.20 ± 0.16 | 90.92 ± 0.53 |" in text
    assert "| teacher, λ_R^KL = 3, detached, training entropy | 0.0100 ± 0.0000 | 0.0100 ± 0.0000 |" in text
    sentence = (
        "With kd, λ_R^KL = 10, resnet8 scored 0.72 points higher when taught by the student-friendly teacher (higher "
        "in 4 of 5 seeds; no significant difference, paired t-test, p = 0.06); it ended 0.72 points above the student "
        "alone."
    )
    assert sentence in text
    assert sentence in " ".join(shown.split())
    assert sentence in (folder / "report.html").read_text()
    assert "95 runs" in text
    with open(folder / "report.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["value"] for row in rows if row["quantity"] == "student alone"][:2] == ["70.0", "70.1"]


def test_a_study_with_few_seeds_makes_nothing_up(tmp_path: Path) -> None:
    study = STUDIES["branches"]
    made.table(tmp_path, study.grid, DEMO, seeds=1)
    (section,) = sections(study.grid, tmp_path)
    assert "cells have only some of their 5 seeds" in section.warnings()[0]
    text = (reported(["branches"], tmp_path) / "report.md").read_text()
    assert "| kd, branch 1 | 70.00 | 71.00 | +1.00 | 1 of 5 |  |  |" in text
    assert (
        "With kd, branch 1, resnet8 scored 1.00 points higher when taught by the student-friendly teacher (one seed"
        in text
    )
    (tmp_path / "none").mkdir()
    text = (reported(["branches"], tmp_path / "none") / "report.md").read_text()
    assert "No run of this study is finished." in text
    assert "not run" in text


def test_what_was_measured_stands_on_the_same_page(tmp_path: Path) -> None:
    study = STUDIES["digits"]
    for item in made.table(tmp_path, replace(study.grid, methods=("kd", "oh")), DEMO, seeds=2):
        entry = RunFolder(tmp_path / item.run.folder).inspect()
        whole = {"test_images": 9, "of": 9}
        if item.cell.way in (STANDARD, FRIENDLY):
            sure = {f"{name}, {part}": 0.5 for name in ("entropy", "ece") for part in ("training", "test")}
            records.write(entry, "entropy", records.Reading(whole, sure, {}))
        if item.run.teacher is not None:
            alike = {"kl": 0.5 - 0.1 * (item.cell.way == FRIENDLY), "cka": 0.9, "agreement": 80.0 + item.run.seed}
            records.write(entry, "similarity", records.Reading(whole, alike, {}))
    folder = reported(["digits"], tmp_path)
    text = (folder / "report.md").read_text()
    assert text.count("## ") >= 4
    assert "| oh, KL, nats | 0.500 ± 0.000 | 0.400 ± 0.000 | -0.100 ± 0.000 | 2 of 5 | 0 of 2 |" in text
    assert "crd, KL" not in text
    assert "teacher's entropy on training images, nats" in text
    assert "teacher's accuracy" not in text
    if tables.available():
        assert text.count("![") == len(list(folder.glob("*.svg"))) >= 4


@pytest.mark.slow
def test_a_study_is_carried_out_measured_reported_and_kept(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    runs, results = tmp_path / "runs", tmp_path / "results"
    how = ("--epochs", "1", "--limit", "60", "--batch", "20", "--methods", "kd", "--seeds", "2", "--test-images", "100")
    fast = ("--timing-seconds", "0", "--precision", "float32", "--device", "cpu")
    code, said, err = called("reproduce", "digits", *how, *fast, "--out", str(runs), capsys=capsys)
    assert (code, err) == (0, "")
    assert "All runs of digits are done and measured" in said
    assert len(list(runs.glob("*/analysis-similarity.json"))) == 4
    assert len(list(runs.glob("*/analysis-entropy.json"))) == 8
    code, said, err = called("runs", "keep", "digits", "--out", str(runs), "--to", str(results), capsys=capsys)
    assert (code, err) == (0, "")
    assert "10 runs kept" in said
    pages = []
    for out in (runs, results):
        code, _, err = called("report", "digits", "--out", str(out), capsys=capsys)
        assert (code, err) == (0, "")
        pages.append([(out / "report-digits" / name).read_bytes() for name in ("report.md", "report.csv")])
    assert pages[0] == pages[1]
    assert b"NOT" not in pages[0][0]
    assert b"Not the study's conditions: 60 training images instead of 200; 1 epoch instead of 80" in pages[0][0]
    assert b"kd, KL, nats | " in pages[0][0]
