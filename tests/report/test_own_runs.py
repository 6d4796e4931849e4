from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest
import torch

from sftn.analysis.calibration import calibration_error, confidence
from sftn.cli import main
from sftn.data.dataset import Dataset, Split
from sftn.data.load import SOURCES
from sftn.errors import InputError
from sftn.networks.staged import StagedNet
from sftn.report.evaluated_run import Latency, NetworkCost, latencies
from sftn.report.figures import runs, tables, thumbnails
from sftn.report.pages.runs import _confusion as confusion
from sftn.runs.build import load_network
from sftn.runs.folder import RunFolder
from sftn.runs.runner import train
from sftn.runtime.device import make_fabric
from sftn.tasks.recipes import objective
from sftn.training.evaluate import Predictions, evaluate, predictions
from tests.support import tiny
from tests.support.drawing import CHROMIUM, DRAWN
from tests.support.reports import reported

CLASSES = "a<b", "b", "c|d", "d"
"""Names that are no markup."""


@pytest.fixture(scope="module")
def images() -> Dataset:
    return replace(tiny.dataset(images=64, tests=40), classes=CLASSES)


@pytest.fixture(scope="module")
def out(images: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain run, which is a teacher too, and one by ft, which has a first stage."""
    from tests.conftest import tiny_networks

    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SOURCES, "tiny", lambda request: images)
        for _ in tiny_networks.__wrapped__():
            teacher = tiny.run(images, "wide", epochs=3)
            train(teacher, images, folder)
            train(tiny.run(images, epochs=3, teacher=teacher, objective=objective("ft")), images, folder)
    return folder


@pytest.fixture
def known(images: Dataset, tiny_networks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "tiny", lambda request: images)


def named(out: Path, name: str) -> str:
    (folder,) = out.glob(f"{name}-*")
    return str(folder)


def network(out: Path, name: str, images: Dataset) -> StagedNet:
    return load_network(RunFolder(Path(named(out, name))).run(), images, out)


@pytest.mark.usefixtures("known")
def test_predictions_are_what_evaluation_counts(out: Path, images: Dataset) -> None:
    fabric = make_fabric("cpu", "float32")
    net = network(out, "wide", images)
    found = predictions(net, images.test, images.normalisation, fabric, batch=7)
    expected = evaluate(net, images.test, images.normalisation, fabric)
    assert found.accuracy == expected["accuracy"]
    assert float(found.loss.mean()) == pytest.approx(expected["nll"])
    assert float(found.entropy.mean()) == pytest.approx(expected["entropy"])
    sure = confidence(net, images.test, images.normalisation, fabric)
    assert sure["accuracy"] == expected["accuracy"]
    counts = confusion(found, 4)
    assert counts.sum(1).tolist() == [10, 10, 10, 10]
    assert 100 * (int(counts.diagonal().sum()) / 40) == found.accuracy


def test_confusion_and_calibration_by_hand() -> None:
    confidence, ones = torch.tensor([0.9, 0.6, 0.8]).double(), torch.ones(3)
    found = Predictions(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), confidence, ones, ones)
    assert confusion(found, 2).tolist() == [[1, 0], [1, 1]]
    assert calibration_error(found) == pytest.approx(100 * (0.1 + 0.6 + 0.2) / 3)


@pytest.mark.usefixtures("known")
def test_a_page_of_a_student_shows_everything(out: Path) -> None:
    folder = reported([named(out, "tiny-ft")], out)
    html, text = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    for heading in ("Training", "Size, accuracy, latency", "Confusion", "Hardest images"):
        assert heading in html
        assert heading in text
    cases = re.findall(r"^\| (?:both|only).*? \| (\d+) \|", text, re.MULTILINE)
    assert len(cases) == 5
    assert sum(map(int, cases)) == 40
    rows = [line for line in text.splitlines() if line.startswith(("| tiny-ft", "| wide"))]
    assert len(rows) == 3  # the summary, student and teacher by size
    assert html.count("<figure><img") >= 12 + tables.available() * 2
    order = ["Hardest images", "Where teacher and student disagree", "Confusion", "Training", "Calibration"]
    assert sorted(order, key=text.index) == order
    assert "40 test images are too few to judge its confidence; it takes 200." in text
    assert "a&lt;b" in html
    assert "a<b" not in html
    assert "c\\|d" in text
    assert not re.search(r"""(?:src|href)=(?!"data:)""", html)
    for picture in re.findall(r"!\[[^]]*]\(([^)]+)\)", text):
        assert (folder / picture).stat().st_size


@pytest.mark.usefixtures("known")
def test_several_runs_stand_side_by_side(out: Path) -> None:
    names = [named(out, "wide"), named(out, "tiny-ft")]
    folder = reported([*names, names[0]], out)
    html, text = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    assert "# 2 runs" in text
    assert html.count("<div class=columns>") == 3 + tables.available()
    assert "Agreement between runs" in text
    # The teacher of one run is the other run: it is listed once.
    assert len(re.findall(r"^\| wide \(seed 0\) ", text, re.MULTILINE)) == 1


@pytest.mark.usefixtures("known")
def test_without_its_images_the_rest_is_shown(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(request: object) -> Dataset:
        raise InputError("no files: give --data-dir")

    monkeypatch.setitem(SOURCES, "tiny", missing)
    folder = reported([named(out, "tiny-ft")], out)
    text = (folder / "report.md").read_text()
    assert "the images of tiny are missing: no files: give --data-dir" in text
    assert "Size, accuracy, latency" in text
    assert "Hardest images" not in text
    assert "Cost and origin" in text


@pytest.mark.usefixtures("known")
def test_other_images_are_not_evaluated(out: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(images, test=Split(255 - images.test.images, images.test.labels))
    monkeypatch.setitem(SOURCES, "tiny", lambda request: other)
    folder = reported([named(out, "wide")], out)
    text = (folder / "report.md").read_text()
    assert "no longer holds the images" in text
    assert "Confusion" not in text


@pytest.mark.usefixtures("known")
def test_without_matplotlib_images_and_tables_stay(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "available", lambda: False)
    folder = reported([named(out, "tiny-ft")], out)
    html = (folder / "report.html").read_text()
    assert "matplotlib is not installed" in html
    assert "image/svg" not in html
    assert html.count("data:image/png") >= 12
    assert "class='scroll matrix'" in html


@pytest.mark.usefixtures("known")
def test_calibration_is_shown_of_enough_images(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftn.report.pages.runs.CALIBRATED", 40)
    text = (reported([named(out, "wide")], out) / "report.md").read_text()
    assert "too few" not in text
    assert re.search(r"^\| wide, seed 0 \| \d+\.\d\d \| \d+\.\d\d \| \d+\.\d\d \|$", text, re.MULTILINE)


@pytest.mark.usefixtures("known")
def test_latencies_far_apart_are_a_warning(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for high, said in ((1.25, False), (2.0, True)):
        times = Latency(1.0, 1.1, high)
        monkeypatch.setattr("sftn.report.pages.runs.latencies", lambda networks, times=times: [times] * len(networks))
        text = (reported([named(out, "wide")], out) / "report.md").read_text()
        assert f"| 1.10 | 1.00 to {high:.2f} |" in text
        assert ("The latency of wide (seed 0) is unsteady" in text) == said


def test_quartiles_of_a_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(accumulate([0.0, *[0.0, 0.001] * 3, *[value for ms in range(1, 6) for value in (0.0, ms / 1000)]]))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    (found,) = latencies([NetworkCost("tiny", None, tiny.network(), tiny.IMAGE, 0)], rounds=8)
    assert found == pytest.approx((2.0, 3.0, 4.0))


@pytest.mark.usefixtures("known")
def test_what_is_wrong_with_a_network_stands_at_the_top(out: Path, tmp_path: Path) -> None:
    copied = tmp_path / "runs"
    shutil.copytree(out, copied, ignore=shutil.ignore_patterns("report-*"))
    path = Path(named(copied, "tiny-ft")) / "result.json"
    record = json.loads(path.read_text())
    record["by_class"] = {"images": [30, 4, 3, 3], "recall": [100.0, 50.0, 0.0, 0.0]}
    record["warnings"] = ["never recognises c|d or d"]
    path.write_text(json.dumps(record))
    folder = reported([named(copied, "tiny-ft")], copied)
    title, box, header, *_ = [line for line in (folder / "report.md").read_text().splitlines() if line]
    assert title.startswith("# tiny-ft-from-wide")
    assert box == "> **tiny-ft-from-wide, seed 0 never recognises c\\|d or d.**"
    assert "balanced, %" in header
    text = (folder / "report.md").read_text()
    assert "| class | test images | recall, % |" in text
    assert "| c\\|d | 3 | 0.0 |" in text
    assert '<p class="warning">tiny-ft' in (folder / "report.html").read_text()


def test_many_classes_are_listed_by_their_mistakes() -> None:
    from sftn.report.pages.runs import _pairs, _weakest

    counts = torch.tensor([[5, 5, 0], [0, 9, 1], [0, 0, 0]])
    assert list(_pairs("xyz", counts, 9))[1:] == [("x", "y", "5", "50.0"), ("y", "z", "1", "10.0")]
    assert list(_weakest("xyz", counts))[1:] == [("x", "50.0", "y", "5"), ("y", "90.0", "z", "1")]


def test_a_log_of_two_phases_is_one_line_of_epochs() -> None:
    rows = [{"phase": "ft", "epoch": 1, "loss": 3.0}, {"phase": "ft", "epoch": 2, "loss": 2.0}]
    rows += [{"phase": "distil", "epoch": 1, "loss": 9.0, "ce": 1.0}]
    found, begins = runs.series(rows)
    assert found == {"loss": {1: 3.0, 2: 2.0, 3: 9.0}, "ce": {3: 1.0}}
    assert begins == {1: "ft", 3: "distil"}


def test_thumbnails_of_any_image(tmp_path: Path) -> None:
    grey, large = torch.full((1, 8, 8), 7, dtype=torch.uint8), torch.zeros(3, 300, 200, dtype=torch.uint8)
    large[0] = 255
    small, other = thumbnails.thumbnail(grey), thumbnails.thumbnail(large)
    assert (small.size, small.getpixel((0, 0))) == ((8, 8), (7, 7, 7))
    assert (max(other.size), other.getpixel((3, 3))) == (thumbnails.LARGEST, (255, 0, 0))
    from PIL import Image

    sheet = Image.open(thumbnails.sheet([small] * 6 + [other], tmp_path / "sheet.png"))
    assert sheet.size == (6 * 102 - 6, 2 * 102 - 6)


@DRAWN
@pytest.mark.usefixtures("known")
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_a_browser_shows_it(out: Path, tmp_path: Path) -> None:
    from PIL import Image

    folder = reported([named(out, "wide"), named(out, "tiny-ft")], out)
    shot = tmp_path / "shot.png"
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr")
    place = (f"--user-data-dir={tmp_path / 'profile'}", "--window-size=390,3000", f"--screenshot={shot}")
    command_line = [str(CHROMIUM), *flags, *place, f"file://{folder / 'report.html'}"]
    asked = subprocess.run(command_line, capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in asked.stderr
    image = Image.open(shot).convert("L")
    # Wide tables scroll within themselves: at the right edge of a phone nothing is cut off.
    assert image.crop((386, 0, 390, 3000)).getextrema()[0] > 200


@pytest.mark.usefixtures("known")
def test_the_command_takes_a_data_dir(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["report", named(out, "wide"), "--out", str(tmp_path), "--data-dir", str(tmp_path), "--device", "cpu"])
    assert "report.html" in capsys.readouterr().out
