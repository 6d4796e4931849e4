"""`sftn analyse` from the command line, on tiny runs of a tiny folder of images."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sftn.cli import main
from tests.support.command import called, refusal
from tests.support.images import images

pytest.importorskip("matplotlib", reason="figures need the extra report")
ANALYSES = ("corruption", "transfer", "similarity", "entropy", "curves")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A standard teacher and a student of it, one epoch each, of 3 classes of 10 images."""
    root = tmp_path_factory.mktemp("images")
    for i, pixels in enumerate(images(30, 16)):
        (root / f"class{i % 3}").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(root / f"class{i % 3}" / f"{i}.png")
    out = tmp_path_factory.mktemp("runs")
    fast = ["--data", f"folder:{root}", "--size", "16", "--epochs", "1", "--batch", "12", "--precision", "float32"]
    fast += ["--out", str(out)]
    main(["train-teacher", "--teacher", "wrn_10_1", "--standard", *fast])
    (teacher,) = out.iterdir()
    main(["distill", "--teacher", str(teacher), "--student", "resnet8", *fast])
    return out


def source(runs: Path) -> str:
    """The name of the data set, with the path of its folder."""
    return "folder:" + str(json.loads((student(runs) / "run.json").read_text())["data"]["path"])


def student(runs: Path) -> Path:
    (found,) = runs.glob("resnet8-kd-from-*")
    return found


def analyse(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    return called("analyse", *arguments, capsys=capsys)


def kept(out: Path, what: str, figure: str) -> tuple[dict[str, object], list[dict[str, str]]]:
    (folder,) = out.glob(f"analyse-{what}-*")
    names = {path.name for path in folder.iterdir()}
    assert {"analysis.json", "analysis.csv", f"{figure}.svg", f"{figure}.png"} <= names
    with open(folder / "analysis.csv", newline="") as file:
        return json.loads((folder / "analysis.json").read_text()), list(csv.DictReader(file))


def test_corruption(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [
        "corruption",
        student(runs),
        "--corruptions",
        "fog",
        "contrast",
        "--out",
        tmp_path,
        "--precision",
        "float32",
    ]
    code, said, complaint = analyse(*asked, "--reference", student(runs), capsys=capsys)
    assert (code, complaint) == (0, "")
    assert "generated" in said
    record, rows = kept(tmp_path, "corruption", "corruption")
    assert record["images"] == "generated"
    assert record["rows"][0]["mCE"] == pytest.approx(100)
    assert len(rows) == 2 * 5  # the reference is the run itself
    recorded = json.loads((student(runs) / "result.json").read_text())["accuracy"]
    assert record["rows"][0]["clean"] == recorded
    code, said, _ = analyse(*asked, "--reference", student(runs), capsys=capsys)
    assert code == 0
    assert "corrupting" not in said
    assert kept(tmp_path, "corruption", "corruption") == (record, rows)


def test_similarity_with_its_own_teacher_or_another(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["similarity", student(runs), "--out", tmp_path, "--precision", "float32"]
    assert analyse(*base, capsys=capsys)[0] == 0
    record, _ = kept(tmp_path, "similarity", "similarity")
    assert record["rows"][0]["teacher"].startswith("wrn_10_1")
    itself = tmp_path / "itself"
    code, _, _ = analyse(
        *base[:2], "--out", itself, "--precision", "float32", "--teacher", student(runs) / "weights.safetensors",
        capsys=capsys,
    )  # fmt: skip
    assert code == 0
    row = kept(itself, "similarity", "similarity")[0]["rows"][0]
    assert (row["kl"], row["agreement"]) == (0, 100)
    assert row["cka"] == pytest.approx(1)


def test_entropy_of_files_and_runs(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tmp_path / "benchmark.pth"
    torch.save({"model": load_file(student(runs) / "weights.safetensors")}, weights)
    code, _, complaint = analyse(
        *("entropy", student(runs), weights, "--network", "resnet8", "--out", tmp_path, "--precision", "float32"),
        capsys=capsys,
    )
    assert (code, complaint) == (0, "")
    rows = kept(tmp_path, "entropy", "entropy")[0]["rows"]
    assert [row["images"] for row in rows] == ["training", "test"] * 2
    assert rows[0]["entropy"] == rows[2]["entropy"]
    recorded = json.loads((student(runs) / "result.json").read_text())["test"]["entropy"]
    assert rows[1]["entropy"] == pytest.approx(recorded, rel=1e-5)


def test_transfer_to_a_folder(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tmp_path / "benchmark.pth"
    torch.save({"model": load_file(student(runs) / "weights.safetensors")}, weights)
    asked = [student(runs), weights, "--network", "resnet8", "--to", source(runs), "--epochs", "3", "--limit", "12"]
    code, said, complaint = analyse("transfer", *asked, "--out", tmp_path, capsys=capsys)
    assert (code, complaint) == (0, "")
    row, of_file = kept(tmp_path, "transfer", "transfer")[0]["rows"]
    assert (row["to"], row["features"]) == (f"folder:{Path(source(runs)).name}", 64)
    assert row | {"network": ""} == of_file | {"network": ""}
    assert f"{row['accuracy']:.2f} %" in said


def test_curves(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, complaint = analyse("curves", *sorted(runs.iterdir()), "--out", tmp_path, capsys=capsys)
    assert (code, complaint) == (0, "")
    record, rows = kept(tmp_path, "curves", "curves")
    assert len(record["teachers and students"]) == 1
    log = json.loads((student(runs) / "log.jsonl").read_text())
    (ours,) = [row for row in rows if row["run"].startswith("resnet8")]
    assert float(ours["kl"]) == log["kd"]
    assert (next(tmp_path.glob("analyse-curves-*")) / "capacity.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["corruption", "RUN", "--corruptions", "fogg"], "fog"),
        (["corruption", "RUN", "--corrupted", "/nowhere"], "/nowhere"),
        (["corruption", "RUN", "--data", "cifar1000"], "cifar100"),
        (["corruption", "/nowhere"], "/nowhere"),
        (["corruption"], "runs"),
        (["entropy", "FILE"], "--data"),
        (["entropy", "RUN", "--bins", "0"], "bins"),
        (["similarity", "TEACHER"], "--teacher"),
        (["similarity", "RUN", "--minibatch", "2"], "minibatch"),
        (["transfer", "RUN", "--to", "stl10", "--data-dir", "/nowhere"], "stl10_binary"),
        (["transfer", "RUN", "--to", "digits"], "3 channels and digits has 1"),
        (["transfer", "RUN", "--to", "digits", "--epochs", "0"], "epochs"),
        (["curves", "/nowhere"], "/nowhere"),
        (["corruptoin", "RUN"], "corruption"),
    ],
)
def test_wrong_input_is_one_line(
    arguments: list[str], word: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (teacher,) = runs.glob("wrn_10_1-folder*")
    places = {"RUN": student(runs), "TEACHER": teacher, "FILE": student(runs) / "weights.safetensors"}
    named = [str(places.get(argument, argument)) for argument in arguments]
    assert word in refusal("analyse", *named, "--out", tmp_path, capsys=capsys)


def test_every_analysis_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ANALYSES:
        code, said, _ = analyse(name, "--help", capsys=capsys)
        assert code == 0
        assert "--out" in said


def test_the_page_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "analysis.md").read_text()
    names: dict[str, dict[str, float]] = {}
    exec("\n".join(re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)), names)
    for name in ("alike", "sure"):
        comment = re.search(rf"^{name} = .*#(.*)$", page, re.MULTILINE)
        assert comment is not None
        assert set(names[name]) == set(comment[1].replace(" ", "").split(","))
    assert all(f"sftn analyse {name}" in page for name in ANALYSES)
    assert (Path(__file__).parents[2] / "docs" / "img" / "corruptions.png").stat().st_size < 400_000
