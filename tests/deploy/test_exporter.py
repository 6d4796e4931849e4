"""What of an export needs no ONNX: weights, torch.export, cards, and what is refused."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
import torch

from sftn.cli import main
from sftn.deploy.classifier import Classifier
from sftn.deploy.exporter import export
from sftn.deploy.parity import noise
from sftn.deploy.preprocessing import Images
from sftn.deploy.source import Source
from sftn.errors import InputError
from sftn.storage.json_files import read_json, write_json
from tests.deploy.conftest import CLASSES
from tests.support.command import refusal


@pytest.fixture
def copied(student: Path, tmp_path: Path) -> Path:
    """A run of one's own to spoil, with its teacher."""
    shutil.copytree(student.parent, tmp_path / "runs")
    return tmp_path / "runs" / student.name


def test_weights_hold_all_that_is_needed(copied: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["export", str(copied), "--to", "safetensors"])
    path = copied / "export" / "model.safetensors"
    assert f"Written: {path}" in capsys.readouterr().out
    again, source = Classifier.load(path), Source.of(copied)
    pixels = torch.from_numpy(noise((3, 16, 16), 5))
    assert torch.equal(again(pixels), source.classifier(pixels))
    assert again.classes == CLASSES
    main(["evaluate", str(path), "--data", f"folder:{photos}", "--size", "16", "--precision", "float32"])
    assert f"{source.result['accuracy']:.2f} %" in capsys.readouterr().out


def test_pixels_may_be_floating_point_or_bytes(student: Path) -> None:
    classifier = Source.of(student).classifier
    pixels = torch.from_numpy(noise((3, 16, 16), 2))
    assert torch.equal(classifier(pixels), classifier(pixels.float()))
    with pytest.raises(InputError, match=r"takes images of B×3×16×16, not 2×3×8×8"):
        classifier(pixels[:, :, :8, :8])
    with pytest.raises(InputError, match="takes images of B×3×16×16, not 3×16×16"):
        classifier(pixels[0])


def test_torch_export_runs_without_this_package(copied: Path) -> None:
    found = export(copied, "torch-export", check_images=3)
    assert found.agreement is not None
    assert (found.agreement.same, found.agreement.images) == (3, 3)
    extra = {"config.json": ""}
    program = torch.export.load(io.BytesIO(found.files[0].read_bytes()), extra_files=extra)
    assert json.loads(extra["config.json"])["id2label"] == {"0": "blue", "1": "green", "2": "red"}
    pixels = torch.from_numpy(noise((3, 16, 16), 5))
    logits, probabilities = program.module()(pixels)
    torch.testing.assert_close(logits, Source.of(copied).classifier(pixels))
    torch.testing.assert_close(probabilities, logits.softmax(1))


def test_several_exports_share_a_card(copied: Path) -> None:
    for to in ("safetensors", "torch-export"):
        export(copied, to)
    card = (copied / "export" / "README.md").read_text()
    assert "Student.from_pretrained" in card
    assert "torch.export.load" in card
    assert "licence of the weights is not stated" in card
    assert "license:" not in card
    assert set(read_json(copied / "export.json")["exports"]) == {"safetensors", "torch-export"}


def test_without_images_noise_is_compared(
    copied: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def nothing(*_: object, **__: object) -> None:
        raise InputError("they are gone")

    monkeypatch.setattr("sftn.runs.trained.load", nothing)
    monkeypatch.setattr("sftn.runs.trained.load_data", nothing)
    found = export(copied, "torch-export", check_images=2)
    assert found.agreement is not None
    assert (found.agreement.same, found.agreement.kind) == (2, "images of noise")
    said = [record.getMessage() for record in caplog.records if record.name.startswith("sftn.")]  # torch traces too
    assert said == ["checked on noise, because the run's images cannot be loaded (they are gone)"]
    with pytest.raises(InputError, match="they are gone"):
        export(copied, "torch-export", data=f"folder:{photos}")


def test_older_result_asks_for_its_images(copied: Path, photos: Path) -> None:
    record = read_json(copied / "result.json")
    images = record.pop("images")
    write_json(copied / "result.json", record)
    with pytest.raises(InputError, match="name its images with --data, or train it again"):
        export(copied, "safetensors")
    found = export(copied, "safetensors", data=f"folder:{photos}")
    assert Classifier.load(found.files[0]).images == Images.read(images, "")


def test_other_images_are_refused(copied: Path) -> None:
    with pytest.raises(InputError, match="leave out the size 16"):
        export(copied, "safetensors", data="digits")


def test_unfinished_and_spoilt_runs_are_refused(copied: Path) -> None:
    weights = copied / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-4] + b"\0\1\2\3")
    with pytest.raises(InputError, match="not the file that the result was measured with"):
        export(copied, "safetensors")
    weights.write_bytes(content)
    (copied / "result.json").unlink()
    with pytest.raises(InputError, match="is not finished"):
        export(copied, "safetensors")


def test_readme_of_something_else_is_kept(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# mine\n")
    with pytest.raises(InputError, match=r"README\.md was not written by sftn export: choose another --out"):
        export(copied, "safetensors", out=tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--to", "onxx"], "onnx"),
        (["--to", "safetensors", "--quantize"], "--to onnx"),
        (["--to", "safetensors", "--check-images", "0"], "--check-images"),
        (["--to", "safetensors", "--license", "GPL v3"], "apache-2.0"),
        (["--to", "safetensors", "--out", "/proc/nowhere"], "--out"),
    ],
)
def test_wrong_options_are_one_line(
    student: Path, options: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert word in refusal("export", student, *options, capsys=capsys)


@pytest.mark.parametrize(
    "change",
    [
        {"std": [0, 1, 1]},
        {"classes": []},
        {"shape": [3, 16]},
        {"mean": "x"},
        {"resize": -1},
        {"mean": [float("nan")] * 3},
    ],
)
def test_records_that_make_no_sense_are_refused(student: Path, change: dict[str, object]) -> None:
    record = read_json(student / "result.json")["images"]
    assert Images.read(record, "here").record() == json.loads(json.dumps(record), object_hook=_tuples)
    with pytest.raises(InputError, match="here does not record what images it takes"):
        Images.read({**record, **change}, "here")


def _tuples(record: dict[str, object]) -> dict[str, object]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}


@pytest.mark.parametrize("record", [{"exports": []}, {"exports": {"onnx": 3}}, {"exports": {"onnx": {"files": 3}}}])
def test_damaged_list_of_exports_is_one_line(copied: Path, record: dict[str, object]) -> None:
    (copied / "export.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"export\.json is damaged"):
        export(copied, "safetensors", check_images=1)
