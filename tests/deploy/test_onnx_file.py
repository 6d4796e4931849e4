"""ONNX files: exported, checked, quantised, measured, and used without this package."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sftn.cli import main
from sftn.deploy.exporter import Exported, export
from sftn.deploy.onnx_file import Session, package
from sftn.deploy.parity import compare, noise
from sftn.deploy.predict import opened, predict
from sftn.deploy.preprocessing import softmax
from sftn.deploy.source import Source
from sftn.errors import InputError
from sftn.storage.json_files import read_json
from tests.deploy.conftest import CLASSES

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def exported(student: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(student, "onnx", out=tmp_path_factory.mktemp("out"), int8=True, licence="mit")


def test_file_answers_as_the_network_does_without_this_package(exported: Exported, student: Path) -> None:
    session = onnxruntime.InferenceSession(str(exported.folder / "model.onnx"))
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["batch", 3, 16, 16])
    source = Source.of(student)
    images = source.classifier.images
    for batch in (1, 2, 7):
        pixels = noise(images.shape, batch)
        logits, probabilities = session.run(["logits", "probabilities"], {"images": pixels})
        mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (images.mean, images.std))
        with torch.no_grad():
            expected = source.classifier.network(torch.from_numpy((pixels - mean) / std)).numpy()
        np.testing.assert_allclose(logits, expected, atol=1e-4)
        np.testing.assert_allclose(probabilities, softmax(logits), atol=1e-6)


def test_file_is_whole_and_names_its_classes(exported: Exported) -> None:
    model = onnx.load(exported.folder / "model.onnx", load_external_data=False)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(said["labels"]) == list(CLASSES)
    assert json.loads(said["sftn"]) == json.loads((exported.folder / "config.json").read_text())


def test_agreement_is_on_the_test_images(exported: Exported) -> None:
    assert exported.agreement is not None
    assert (exported.agreement.same, exported.agreement.images, exported.agreement.kind) == (6, 6, "test images")
    assert exported.agreement.difference < 1e-4


def test_int8_is_smaller_and_both_networks_are_measured(exported: Exported, student: Path) -> None:
    rows = {(row.role, row.network, row.numbers): row for row in exported.measured}
    assert list(rows) == [
        ("student", "resnet8", "float32"),
        ("student", "resnet8", "int8"),
        ("teacher", "resnet14", "float32"),
        ("teacher", "resnet14", "int8"),
    ]
    for (role, network, numbers), row in rows.items():
        assert row.bytes < rows[role, network, "float32"].bytes or numbers == "float32"
        assert set(row.seconds) == {1, 64}
        assert 0 < row.seconds[1] < row.seconds[64]
    recorded = read_json(student / "result.json")["accuracy"]
    assert rows["student", "resnet8", "float32"].accuracy == pytest.approx(recorded)
    entry = read_json(student / "export.json")["exports"]["onnx"]
    assert [row["accuracy"] for row in entry["measured"]] == [row.accuracy for row in exported.measured]
    assert entry["bytes"] == {name: (exported.folder / name).stat().st_size for name in entry["files"]}


def test_int8_holds_integers(exported: Exported) -> None:
    model = onnx.load(exported.folder / "model.int8.onnx")
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in model.graph.node}
    kinds = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 4 and tensor.dims[0] > 1}
    assert kinds == {onnx.TensorProto.INT8}


def test_card_says_what_was_measured(exported: Exported, student: Path) -> None:
    text = (exported.folder / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: sftn\n")
    for part in ('license: "mit"', "teacher resnet14 | int8", "0.1·CE + 0.9·KD", "0. `blue`", "6 of 6 test images"):
        assert part in text
    assert str(student.parent) not in text


def test_predict_by_the_file_is_predict_by_the_run(
    exported: Exported, student: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for model in (exported.folder / "model.onnx", student):
        main(["predict", str(model), str(photos / "red"), str(photos / "blue" / "3.png"), "--top", "2"])
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert len(said[0].splitlines()) == 13
    assert f"{photos / 'red' / '0.png'}: " in said[0]


def test_quantised_file_predicts(exported: Exported, photos: Path) -> None:
    found = list(predict(opened(exported.folder / "model.int8.onnx"), sorted((photos / "green").iterdir()), top=9))
    assert len(found) == 12
    assert all(sum(p for _, p in answer.classes) == pytest.approx(1, abs=0.02) for answer in found)
    assert all({name for name, _ in answer.classes} == set(CLASSES) for answer in found)


@pytest.mark.parametrize("kept", [0, 100, 5000])
def test_damaged_file_is_one_line(exported: Exported, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes((exported.folder / "model.onnx").read_bytes()[:kept])
    with pytest.raises(InputError, match=r"not a whole ONNX file|does not name its classes"):
        opened(path)


def test_file_of_somebody_else_is_refused(exported: Exported, tmp_path: Path) -> None:
    model = onnx.load(exported.folder / "model.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(InputError, match="does not name its classes"):
        opened(tmp_path / "model.onnx")


def test_file_whose_metadata_are_of_another_network_is_refused(exported: Exported, tmp_path: Path) -> None:
    model = onnx.load(exported.folder / "model.onnx")
    for entry in model.metadata_props:
        if entry.key == "sftn":
            record = json.loads(entry.value)
            record["images"]["classes"].remove("green")
            entry.value = json.dumps(record)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(InputError, match="does not fit its metadata"):
        opened(tmp_path / "model.onnx")


def test_file_that_answers_otherwise_is_refused(exported: Exported, student: Path) -> None:
    classifier = Source.of(student).classifier
    session, pixels = Session((exported.folder / "model.onnx").read_bytes()), noise(classifier.images.shape, 9)
    assert compare(classifier, session.logits, pixels, "images", "ONNX").same == 9

    def shifted(images: np.ndarray) -> np.ndarray:
        return session.logits(images) + 1

    def lost(images: np.ndarray) -> np.ndarray:
        return session.logits(images) * np.nan

    for wrong in (shifted, lost):
        with pytest.raises(InputError, match="differs from PyTorch"):
            compare(classifier, wrong, pixels, "images", "ONNX")


def test_network_that_cannot_be_exported_is_one_line(student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sftn.deploy import onnx_file

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such operator\nand forty lines more")

    monkeypatch.setattr(torch.onnx, "export", broken)
    with pytest.raises(InputError, match=r"resnet8 cannot be exported to ONNX: no such operator$"):
        onnx_file.to_onnx(Source.of(student).classifier, {})


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(InputError, match=r"onnxruntime is not installed: pip install 'sftn\[onnx\]'"):
        package("onnxruntime.quantization")


def test_numbers_in_other_files_are_refused_however_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reliability.bad_shipped import at_length, onnx_file

    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside").write_bytes(bytes(36))
    for place in ("beside", "../beside", "/etc/passwd", "*/_ORT_MEM_ADDR_/*"):
        for content in (onnx_file(elsewhere=place), at_length(place), at_length(place, b"\x88\x00")):
            (tensor,) = onnx.load_from_string(content).graph.initializer
            assert {entry.key: entry.value for entry in tensor.external_data}["location"] == place
            with pytest.raises(InputError, match="refers to other files"):
                Session(content)
    assert Session(onnx_file()).probabilities(np.zeros((2, 3, 16, 16), np.uint8)).shape == (2, 3)


def test_a_class_may_be_called_location() -> None:
    from reliability.bad_shipped import IMAGES, onnx_file

    record = IMAGES.record() | {"classes": ["location", "\0location", "\blocation"]}
    assert Session(onnx_file(record)).images.classes[0] == "location"


def test_damage_that_shows_when_it_is_run_is_one_line() -> None:
    from reliability.bad_shipped import onnx_file

    model = onnx.load_from_string(onnx_file())
    model.graph.initializer[0].ClearField("float_data")
    model.graph.initializer[0].raw_data = np.full((3, 3), 0.5, np.float32).tobytes()
    reshape = onnx.helper.make_node("Reshape", ["flat", "five"], ["odd"])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([5, 3]), "five"))
    model.graph.node.insert(3, reshape)
    model.graph.node[4].input[0] = "odd"
    with pytest.raises(InputError, match=r"cannot be run|gives 5×3 numbers"):
        Session(model.SerializeToString()).logits(np.zeros((2, 3, 16, 16), np.uint8))
