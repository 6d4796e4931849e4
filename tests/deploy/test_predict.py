"""`sftn predict` on files, good and bad ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sftn.cli import main
from sftn.deploy.classifier import Classifier
from sftn.deploy.predict import Model, files, of_classifier, opened, predict
from sftn.deploy.preprocessing import LUMA, Images
from sftn.deploy.source import Source
from sftn.errors import InputError
from sftn.networks.weights import save_weights
from tests.deploy.conftest import CLASSES, paint
from tests.support.command import called, refusal


def test_classes_are_the_likeliest_first(student: Path, tmp_path: Path) -> None:
    paths = []
    for channel in range(3):
        paths.append(tmp_path / f"{channel}.jpg")
        paint(paths[-1], channel, 999 + channel, size=(70, 50))
    answers = list(predict(of_classifier(Source.of(student).classifier), paths, top=3))
    assert [answer.path for answer in answers] == paths
    for answer in answers:
        values = [value for _, value in answer.classes]
        assert values == sorted(values, reverse=True)
        assert sum(values) == pytest.approx(1, abs=1e-6)
        assert {name for name, _ in answer.classes} == set(CLASSES)


def test_accuracy_on_files_is_that_of_the_run(student: Path, photos: Path) -> None:
    source = Source.of(student)
    dataset = source.images(None, None)
    paths = sorted(photos.rglob("*.png"))
    model = of_classifier(source.classifier)
    said = {answer.path: answer.classes[0][0] for answer in predict(model, paths, top=1)}
    pixels = {source.classifier.images.pixels(path).tobytes(): path for path in paths}
    right = [
        said[pixels[image.numpy().tobytes()]] == CLASSES[label]
        for image, label in zip(dataset.test.images, dataset.test.labels)
    ]
    assert 100 * sum(right) / len(right) == pytest.approx(source.result["accuracy"])


def test_bad_images_are_named_and_the_others_answered(
    student: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    good = photos / "red" / "0.png"
    with pytest.raises(SystemExit, match="2"):
        main(["predict", str(student), str(broken), str(good), str(tmp_path / "absent.png"), "--top", "1"])
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert out.startswith(f"{good}: ")
    first, second, last = err.splitlines()
    assert "broken.png is not a readable image" in first
    assert "absent.png" in second
    assert last == "sftn: 2 of 3 images could not be read: see the lines above"


def test_a_folder_stands_for_its_pictures_whatever_they_are_called(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = photos / "red" / "0.png"
    place = tmp_path / "in"
    (place / "deep").mkdir(parents=True)
    for name in ("deep/b.jfif", "a", "c.png", ".hidden.png"):
        (place / name).write_bytes(one.read_bytes())
    for name in ("notes.txt", "d.heic"):
        (place / name).write_text("x")
    (place / "linked").symlink_to(photos / "red")
    caplog.set_level("INFO", "sftn")
    found = [path.relative_to(place).as_posix() for path in files([place, one]) if path != one]
    own = [f"linked/{path.name}" for path in sorted((photos / "red").iterdir())]
    assert found == ["a", "c.png", "deep/b.jfif", *own]
    assert caplog.messages == [
        f"{place}: left out: 1 file that isn't a picture (1 .txt), 1 hidden",
        f"{place}: left out: 1 picture of a kind that isn't read here (1 .heic): convert them to PNG or JPEG",
    ]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["RUN"], "needs IMAGES"),
        (["RUN", "IMAGE", "--top", "0"], "--top"),
        (["RUN", "EMPTY"], "has no images"),
        (["/nowhere", "IMAGE"], "/nowhere"),
        (["IMAGE", "IMAGE"], "neither a run's folder"),
        (["EMPTY", "IMAGE"], "run.json"),
    ],
)
def test_wrong_input_is_one_line(
    arguments: list[str],
    word: str,
    student: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {"RUN": student, "IMAGE": photos / "red" / "0.png", "EMPTY": tmp_path}
    for name, path in names.items():
        arguments = [argument.replace(name, str(path)) for argument in arguments]
    assert word in refusal("predict", *arguments, capsys=capsys)


def test_a_runs_weights_say_what_images_they_take(
    student: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, alone = str(photos / "red" / "0.png"), tmp_path / "alone.safetensors"
    alone.write_bytes((student / "weights.safetensors").read_bytes())
    said = [called("predict", str(what), image, capsys=capsys)[1] for what in (student, alone)]
    assert said[0] == said[1]
    save_weights(Source.of(student).classifier.network, alone, {"network": "resnet8"})
    assert "does not record what images it takes" in refusal("predict", str(alone), image, capsys=capsys)


def test_grey_networks_get_grey_pixels(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = 200, 100, 50
    Image.fromarray(pixels).save(tmp_path / "a.png")
    images = Images(("a", "b"), (1, 4, 4), 4, (0.0,), (1.0,))
    found = images.pixels(tmp_path / "a.png")
    assert found.shape == (1, 4, 4)
    assert (found == round(200 * LUMA[0] + 100 * LUMA[1] + 50 * LUMA[2])).all()
    with pytest.raises(InputError, match="2×4×4, which no image file has"):
        Images(("a", "b"), (2, 4, 4), 4, (0.0, 0.0), (1.0, 1.0)).pixels(tmp_path / "a.png")


def test_a_class_does_not_command_the_terminal(
    student: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier = Source.of(student).classifier
    images = replace(classifier.images, classes=("\x1b[2J\n", "[/x]", "ok"))
    Classifier(classifier.network, images, classifier.name).save(tmp_path / "model.safetensors")
    main(["predict", str(tmp_path / "model.safetensors"), str(photos / "red" / "1.png")])
    said = capsys.readouterr().out
    assert (said.count("\n"), said.count("\x1b")) == (1, 0)
    assert "[/x]" in said
    assert "\\x1b[2J\\n" in said


def test_only_the_weights_say_how_many_classes_are_built(student: Path, tmp_path: Path) -> None:
    classifier = Source.of(student).classifier
    images = replace(classifier.images, classes=("x",) * 10**5)
    Classifier(classifier.network, images, classifier.name).save(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="has no classifier of 100000 classes"):
        opened(tmp_path / "model.safetensors")


@pytest.mark.parametrize("change", [{"shape": (3, 10**6, 10**6)}, {"resize": 10**9}, {"shape": (10**9, 16, 16)}])
def test_images_of_any_size_are_not_made(change: dict[str, Any], student: Path, tmp_path: Path) -> None:
    classifier = Source.of(student).classifier
    images = replace(classifier.images, **change)
    with pytest.raises(InputError, match="does not record what images it takes"):
        Images.read(images.record(), "x")


def test_few_large_images_go_at_once(photos: Path) -> None:
    seen = []

    def probabilities(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        seen.append(len(pixels))
        return np.ones((len(pixels), 1))

    images = Images(("a",), (3, 1024, 1024), 1024, (0.0,) * 3, (1.0,) * 3)
    assert len(list(predict(Model(images, probabilities), sorted((photos / "red").iterdir())[:5]))) == 5
    assert seen == [4, 1]
