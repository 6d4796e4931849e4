"""Curves and points read from folders of runs, and the figures and files made of them."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from sftn.analysis.corruption import Robustness
from sftn.analysis.curves import Curve, curve, points, rows
from sftn.errors import InputError
from sftn.report.csv_file import write_csv
from sftn.report.figures import analysis
from sftn.runs.folder import RunFolder
from sftn.spec.run import FORMAT, Friendly, Run
from sftn.storage.json_files import write_json
from sftn.tasks.recipes import objective
from tests.support import tiny
from tests.support.images import images

pytest.importorskip("matplotlib", reason="figures need the extra report")


def folder(out: Path, run: Run, log: list[dict[str, object]], accuracy: float | None = None) -> RunFolder:
    """What a run would have left."""
    place = RunFolder(out / run.folder)
    place.write(run)
    place.log.write_text("".join(json.dumps(row) + "\n" for row in log))
    if accuracy is not None:
        write_json(place.result_json, {"format": FORMAT, "id": run.id, "accuracy": accuracy})
    return place


def row(epoch: int, kd: float | None = None, accuracy: float | None = None, phase: str = "distil") -> dict[str, object]:
    """A line of a log."""
    found: dict[str, object] = {"phase": phase, "epoch": epoch, "loss": 1.0}
    return found | ({} if kd is None else {"kd": kd}) | ({} if accuracy is None else {"test_accuracy": accuracy})


def runs() -> tuple[Run, Run, Run, Run]:
    """Standard and friendly teacher, and the student of each."""
    standard = tiny.run(tiny.dataset(), "wide")
    friendly = replace(standard, friendly=Friendly(student="tiny"))
    pupils = [replace(tiny.run(tiny.dataset()), teacher=one, objective=objective("kd")) for one in (standard, friendly)]
    return standard, friendly, pupils[0], pupils[1]


def test_a_curve_is_the_main_phase(tmp_path: Path) -> None:
    *_, student = runs()
    log = [row(1, phase="ft"), row(1, 0.5), row(2, 0.25, 40.0)]
    found = curve(folder(tmp_path, student, log))
    assert found == Curve(student.name, 0, (1, 2), (0.5, 0.25), (None, 40.0))
    assert rows([found])[1] == {"run": student.name, "seed": 0, "epoch": 2, "kl": 0.25, "test_accuracy": 40.0}


def test_a_log_that_is_being_written_is_read_and_a_damaged_one_named(tmp_path: Path) -> None:
    student = runs()[2]
    place = folder(tmp_path, student, [row(1, 0.5), row(2, 0.25)])
    log = place.log
    whole = log.read_text()
    log.write_text(whole + '{"phase": "dis')
    assert curve(place).epochs == (1, 2)
    for content, word in (("", "empty"), ("[]\n" + whole, "line 1"), ('{"epoch": 1}\n' + whole, "line 1")):
        log.write_text(content)
        with pytest.raises(InputError, match=word) as error:
            curve(place)
        assert str(log) in str(error.value)
    log.unlink()
    with pytest.raises(InputError, match="cannot read"):
        curve(place)


def test_points_need_a_teacher_beside(tmp_path: Path) -> None:
    standard, friendly, of_standard, of_friendly = runs()
    folder(tmp_path, standard, [row(1)], 75.0)
    folder(tmp_path, friendly, [row(1)], 74.0)
    places = [
        folder(tmp_path, of_standard, [row(1)], 68.0),
        folder(tmp_path, of_friendly, [row(1)], 69.0),
        folder(tmp_path, tiny.run(tiny.dataset(), seed=3), [row(1)], 60.0),
    ]
    found = points(places)
    assert [(p.friendly, p.teacher, p.student, p.teacher_accuracy, p.student_accuracy) for p in found] == [
        (False, "wide", "tiny", 75.0, 68.0),
        (True, "wide", "tiny", 74.0, 69.0),
    ]
    (tmp_path / standard.folder / "result.json").unlink()
    assert [p.friendly for p in points(places)] == [True]


def curves(seeds: int = 2) -> list[Curve]:
    """Two names, so many seeds."""
    return [
        Curve(name, seed, (1, 2, 3), (2.0 / k, 1.0 / k, 0.5 / k), (10.0, None, 30.0 + k + seed))
        for k, name in enumerate(("from standard", "from friendly"), 1)
        for seed in range(seeds)
    ]


def test_every_figure_says_what_it_shows_and_is_the_same_twice(tmp_path: Path) -> None:
    from sftn.analysis.curves import Point

    tested = [Robustness("first", 70, {"fog": [60, 50, 40, 30, 20]}), Robustness("second", 72, {"fog": [61] * 5})]
    marks = [Point("big", "small", friendly, 0, 70.0 + friendly, 60.0) for friendly in (False, True)]
    table = [{"network": "first", "entropy": 0.5}, {"network": "second", "entropy": 0.0}]
    for name, draw, words in (
        ("robustness", lambda: analysis.robustness(tested), ("first", "second", "fog", "severity")),
        ("training", lambda: analysis.training(curves()), ("from standard (2 seeds)", "epoch", "test accuracy in %")),
        ("capacity", lambda: analysis.capacity(marks), ("standard teacher", "big → small", "student accuracy in %")),
        ("values", lambda: analysis.values(table, "network", {"entropy": "nats"}), ("first", "nats", "0.5")),
    ):
        svg = analysis.save(draw(), tmp_path, name)
        png = svg.with_suffix(".png")
        text = "".join(ElementTree.parse(svg).getroot().itertext())
        assert all(word in text for word in words), name
        assert png.read_bytes().startswith(b"\x89PNG")
        first = svg.read_bytes()
        assert analysis.save(draw(), tmp_path, name).read_bytes() == first


def test_runs_without_a_teacher_or_tests_can_be_drawn() -> None:
    alone = Curve("alone", 0, (1, 2), (None, None), (None, 50.0))
    figure = analysis.training([alone, *curves(1)])
    assert [len(ax.lines) for ax in figure.axes] == [2, 3]
    assert figure.axes[0].get_yscale() == "log"
    assert analysis.training([Curve("zero", 0, (1,), (0.0,), (1.0,))]).axes[0].get_yscale() == "linear"


def test_the_contact_sheet_has_every_corruption() -> None:
    figure = analysis.contact_sheet(images(1)[0])
    said = {text.get_text().replace("\n", "_") for ax in figure.axes for text in ax.texts}
    from sftn.analysis.corruptions import CORRUPTIONS

    assert said == set(CORRUPTIONS)
    shown = [np.asarray(image.get_array()) for ax in figure.axes for image in ax.get_images()]
    assert len(shown) == 19 * 6


def test_csv_keeps_every_number(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_csv(path, [{"a": 0.1 + 0.2, "b": None}, {"a": 1, "b": "x, y"}])
    with open(path, newline="") as file:
        found = list(csv.DictReader(file))
    assert [list(entry.values()) for entry in found] == [["0.30000000000000004", ""], ["1", "x, y"]]


def test_without_matplotlib_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"pip install 'sftn\[report\]'"):
        analysis.require()
