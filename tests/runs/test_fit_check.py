"""What a network knows of its images is compared with those that it is given: mended where it can be, or refused."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from sftn.data.dataset import Dataset, Split
from sftn.errors import InputError
from sftn.networks.input_scale import rescale
from sftn.networks.staged import StagedNet
from sftn.networks.weights import load_weights, read_metadata, save_weights
from sftn.runs.build import load_network, load_start
from sftn.runs.fit_check import Fit, Known
from sftn.runs.folder import RunFolder
from sftn.runs.runner import train
from sftn.runs.teacher import tried
from sftn.runs.train import distill, train_teacher
from sftn.runs.trained import Trained
from sftn.runtime.device import make_fabric
from sftn.spec.execution import Execution
from sftn.spec.jobs import Distill, TrainTeacher, asked
from sftn.spec.run import Weights
from sftn.storage.json_files import write_json
from sftn.tasks.recipes import objective
from tests.support import tiny

DATA = tiny.dataset()
CPU = Execution(device="cpu")
HOW = {"epochs": 1, "batch": 16, "precision": "float32", "device": "cpu"}
TEACHER = tiny.run(DATA, "wide", epochs=12)

pytestmark = pytest.mark.usefixtures("tiny_networks")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher that tells the classes apart."""
    from functools import partial

    from sftn.networks import NETWORKS

    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "wide", partial(tiny.network, (6, 8, 12)))
        assert train(TEACHER, DATA, out, CPU)["accuracy"] > 90
    return out


def ordered(*places: int) -> Dataset:
    """The same images with the classes in another order, or fewer of them."""
    new = torch.full((tiny.CLASSES,), -1)
    new[list(places)] = torch.arange(len(places))
    splits = (Split(split.images, new[split.labels]) for split in (DATA.train, DATA.test))
    train_split, test_split = (split.pick(split.labels >= 0) for split in splits)
    return replace(DATA, train=train_split, test=test_split, classes=tuple("abcd"[place] for place in places))


def accuracy(network: StagedNet, dataset: Dataset) -> float:
    mean, std = (values.view(-1, 1, 1) for values in dataset.normalisation)
    with torch.no_grad():
        answers = network.eval()((dataset.test.images - mean) / std).argmax(1)
    return 100 * float((answers == dataset.test.labels).double().mean())


def test_a_run_and_its_file_record_names_and_preparation(runs: Path) -> None:
    mean, std = (tuple(values.tolist()) for values in DATA.normalisation)
    expected = Known(tuple("abcd"), tiny.IMAGE, (mean, std))
    assert Known.of(TEACHER, runs) == expected
    weights = RunFolder(runs / TEACHER.folder).weights
    (source,) = (Trained.of(weights).source,)
    assert Known.of(source, Path("nowhere")) == expected
    assert json.loads(read_metadata(weights)["images"])["classes"] == list("abcd")


def test_the_same_images_change_no_bit(runs: Path) -> None:
    plain = tiny.network((6, 8, 12))
    load_weights(plain, RunFolder(runs / TEACHER.folder).weights)
    found = load_network(TEACHER, DATA, runs)
    assert found.state_dict().keys() == plain.state_dict().keys()
    images = torch.randn(4, *tiny.IMAGE)
    assert torch.equal(found.eval()(images), plain.eval()(images))


@pytest.mark.parametrize("places", [(3, 1, 0, 2), (2, 0), (3, 2, 1)])
def test_classes_are_found_by_their_names(
    places: tuple[int, ...], runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sftn")
    other = ordered(*places)
    found = load_network(TEACHER, other, runs)
    whole = load_network(TEACHER, DATA, runs)
    own = replace(other, statistics=tuple(tuple(values.tolist()) for values in DATA.normalisation))
    images = (other.test.images - own.normalisation[0].view(-1, 1, 1)) / own.normalisation[1].view(-1, 1, 1)
    exact = load_network(TEACHER, own, runs).eval()(images)
    assert torch.allclose(exact, whole.eval()(images)[:, list(places)], atol=1e-5)
    assert accuracy(found, other) > 90
    said = "another order" if len(places) == 4 else f"knows 4 classes: the {len(places)} of tiny are found by name"
    assert any(said in line for line in caplog.messages)


def test_other_classes_are_refused_before_anything_is_written(runs: Path, tmp_path: Path) -> None:
    other = replace(DATA, classes=("a", "b", "c", "zebra"))
    with pytest.raises(InputError) as caught:
        load_network(TEACHER, other, runs)
    assert str(caught.value) == (
        "wide was trained on 4 classes (a, b, c, d), and tiny has 4 classes (a, b, c, zebra): it knows no zebra; give "
        "images of its classes, or train it on these (sftn train-teacher --teacher, with its file or run)"
    )
    job = {**HOW, "teacher": str(runs / TEACHER.folder), "student": "tiny", "out": tmp_path / "new"}
    with pytest.raises(InputError, match="knows no zebra"):
        distill(asked(Distill, job), other)
    assert not (tmp_path / "new").exists()


def test_classes_that_are_only_numbered_are_a_warning(runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_network(TEACHER, replace(DATA, classes=tuple("0123")), runs)
    assert [line for line in caplog.messages if "tiny only numbers its classes" in line]


def test_a_network_gets_the_mean_and_deviation_of_its_own_training(runs: Path) -> None:
    dim = replace(DATA, statistics=((10.0, 20.0, 30.0), (90.0, 40.0, 200.0)))
    found, whole = load_network(TEACHER, dim, runs).eval(), load_network(TEACHER, DATA, runs).eval()
    pixels = DATA.test.images.float()
    ours, theirs = ([v.view(-1, 1, 1) for v in data.normalisation] for data in (dim, DATA))
    with torch.no_grad():
        got, expected = found((pixels - ours[0]) / ours[1]), whole((pixels - theirs[0]) / theirs[1])
        naive = whole((pixels - ours[0]) / ours[1])
    assert torch.allclose(got, expected, atol=1e-4)
    assert not torch.allclose(naive, expected, atol=0.1)
    assert accuracy(found, dim) == accuracy(whole, DATA)


def test_fewer_training_images_do_not_change_what_a_teacher_sees(
    runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sftn")
    few = replace(DATA, train=DATA.train.pick(torch.arange(20)))
    assert not torch.equal(few.normalisation[0], DATA.normalisation[0])
    job = {**HOW, "teacher": str(runs / TEACHER.folder), "student": "tiny", "out": tmp_path, "batch": 10}
    found = distill(asked(Distill, job), few)
    record = json.loads((found.folder / "result.json").read_text())
    assert record["teacher"] == {
        "accuracy": accuracy(load_network(TEACHER, DATA, runs), DATA),
        "images": 24,
        "near_chance": False,
    }
    line = f"teacher wide (weights.safetensors): {record['teacher']['accuracy']:.2f} % on 24 test images of tiny"
    assert line in caplog.messages
    assert any("normalised by the mean and deviation of its own training" in said for said in caplog.messages)


def test_a_teacher_near_chance_is_a_warning_and_recorded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "w.pth"
    torch.save(tiny.network().state_dict(), path)
    job = {**HOW, "teacher": str(path), "teacher_network": "tiny", "student": "tiny", "out": tmp_path / "runs"}
    found = distill(asked(Distill, job), DATA)
    assert any("is near chance on tiny" in line for line in caplog.messages)
    assert json.loads((found.folder / "result.json").read_text())["teacher"]["near_chance"] is True


def test_another_size_is_a_warning_and_other_channels_are_refused(runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    small = replace(DATA, train=Split(DATA.train.images[..., ::2, ::2], DATA.train.labels))
    load_network(TEACHER, small, runs)
    assert any("trained on images of 16×16 and gets 8×8 here" in line for line in caplog.messages)
    grey = replace(DATA, train=Split(DATA.train.images[:, :1], DATA.train.labels))
    with pytest.raises(InputError, match="images of 3 channels, not 1 as tiny has"):
        load_network(TEACHER, grey, runs)


def by_half(out: Path) -> Path:
    """The weights of a network that was trained elsewhere, on images normalised by 0.5 and 0.5."""
    torch.manual_seed(1)
    network = tiny.network()
    images, labels = (DATA.train.images.float() / 255 - 0.5) / 0.5, DATA.train.labels
    optimizer = torch.optim.SGD(network.parameters(), 0.05, 0.9)
    for step in range(180):
        batch = torch.arange(16) + 16 * (step % 3)
        loss = F.cross_entropy(network(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(network.state_dict(), out / "half.pth")
    return out / "half.pth"


def test_an_unknown_normalisation_is_guessed_in_a_warning_and_can_be_given(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, fabric = by_half(tmp_path), make_fabric("cpu", "float32")
    about = {"teacher": str(path), "teacher_network": "tiny", "student": "tiny"}
    dim = replace(DATA, statistics=((90.0, 90.0, 90.0), (8.0, 8.0, 8.0)))  # far from what it was trained with
    source = Trained.of(path, "tiny").source
    first = tried(load_network(source, dim, tmp_path), dim, fabric, source)
    (warning,) = (line for line in caplog.messages if "is not recorded" in line)
    assert "with --teacher-mean 0.5 --teacher-std 0.5" in warning
    job = asked(Distill, {**about, "teacher_mean": 0.5, "teacher_std": 0.5})
    given = Trained.of(job.teacher[0], about=job.teacher_file).source
    caplog.clear()
    second = tried(load_network(given, dim, tmp_path), dim, fabric, given)
    assert second["accuracy"] > 90 > first["accuracy"]
    assert f"{second['accuracy']:.1f} % with" in warning
    assert not [line for line in caplog.messages if "is not recorded" in line]
    with pytest.raises(InputError, match="--teacher-mean and --teacher-std together"):
        Trained.of(path, about=asked(Distill, {**about, "teacher_mean": 0.5}).teacher_file)
    with pytest.raises(InputError, match="above 0"):
        Trained.of(path, about=asked(Distill, {**about, "teacher_mean": 0.5, "teacher_std": 0.0}).teacher_file)


def test_a_file_of_many_classes_lends_the_columns_of_named_ones(runs: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("d\na\nc\nb\nx\ny\n")
    wide = tiny.network((6, 8, 12), classes=6)
    load_weights(wide, RunFolder(runs / TEACHER.folder).weights, columns=[3, 0, 2, 1, 0, 0])
    torch.save(wide.state_dict(), tmp_path / "six.pth")
    job = {**HOW, "teacher": str(tmp_path / "six.pth"), "teacher_network": "wide", "student": "tiny"}
    with pytest.raises(InputError, match=r"has 6 classes, not 4: .* name its classes with --teacher-classes"):
        distill(asked(Distill, {**job, "out": tmp_path}), DATA)
    found = Trained.of(tmp_path / "six.pth", about=asked(Distill, {**job, "teacher_classes": names}).teacher_file)
    assert accuracy(found.network(DATA), DATA) == accuracy(load_network(TEACHER, DATA, runs), DATA)
    for text in ("a\n", "a\na\n"):
        names.write_text(text)
        with pytest.raises(InputError, match="must name at least 2 classes"):
            Trained.of(tmp_path / "six.pth", about=asked(Distill, {**job, "teacher_classes": names}).teacher_file)


def test_training_starts_from_a_file_with_a_new_classifier_where_it_must(
    runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sftn")
    weights = RunFolder(runs / TEACHER.folder).weights
    state = load_network(TEACHER, DATA, runs).state_dict()
    start = Trained.of(weights).source
    assert isinstance(start, Weights)
    for dataset, head in ((DATA, state["head.linear.weight"]), (ordered(1, 0), state["head.linear.weight"][[1, 0]])):
        network = tiny.network((6, 8, 12), classes=len(dataset.classes))
        load_start(network, start, dataset)
        assert torch.equal(network.head.linear.weight, head)
    for dataset in (replace(DATA, classes=tuple("wxyz")), replace(DATA, classes=tuple("wxyzu"))):
        network = tiny.network((6, 8, 12), classes=len(dataset.classes))
        own = network.head.linear.weight.clone()
        load_start(network, start, dataset)
        assert torch.equal(network.head.linear.weight, own)
        assert torch.equal(network.stem.body[0].weight, state["stem.body.0.weight"])
    assert sum("its classifier is new" in line for line in caplog.messages) == 2

    job = {**HOW, "teacher": str(weights), "student": "tiny", "out": tmp_path, "lr": 1e-6}
    found = train_teacher(asked(TrainTeacher, job), DATA)
    assert found.run.name == "wide-tuned-for-tiny"
    assert found.accuracy == accuracy(load_network(TEACHER, DATA, runs), DATA)
    scratch = train_teacher(asked(TrainTeacher, {**job, "teacher": "wide"}), DATA)
    assert scratch.accuracy < found.accuracy
    with pytest.raises(InputError, match="there is no weights file at wide"):
        train_teacher(asked(TrainTeacher, {**job, "teacher": "wide", "teacher_network": "wide"}), DATA)


def test_a_students_file_knows_its_classes_wherever_it_lies(runs: Path, tmp_path: Path) -> None:
    run = tiny.run(DATA, epochs=1, teacher=TEACHER, objective=objective("kd"))
    train(run, DATA, runs, CPU)
    moved = tmp_path / "mine.safetensors"
    moved.write_bytes(RunFolder(runs / run.folder).weights.read_bytes())
    with pytest.raises(InputError, match="knows no zebra"):
        Trained.of(moved).network(replace(DATA, classes=("a", "b", "c", "zebra")))


def test_what_earlier_versions_left_is_still_read(runs: Path, tmp_path: Path) -> None:
    """Their files hold mean and deviation, and results beside them know the names."""
    network, mean, std = load_network(TEACHER, DATA, runs), [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]
    about = {"network": "wide", "classes": "4", "mean": json.dumps(mean), "std": json.dumps(std)}
    path = tmp_path / "weights.safetensors"
    save_weights(network, path, about)
    source = Trained.of(path).source
    assert isinstance(source, Weights)
    assert Known.of(source, tmp_path) == Known(None, None, (tuple(mean), tuple(std)))
    images = {"classes": list("dcba"), "shape": list(tiny.IMAGE), "resize": 16, "mean": mean, "std": std}
    save_weights(network, path, {"network": "wide"})
    source = Trained.of(path).source
    assert isinstance(source, Weights)
    write_json(tmp_path / "result.json", {"weights_sha256": source.sha256, "images": images})
    assert Known.of(source, tmp_path).classes == tuple("dcba")
    write_json(tmp_path / "result.json", {"weights_sha256": "another", "images": images})
    assert Known.of(source, tmp_path) == Known()


@pytest.mark.parametrize(
    "said",
    [
        {"mean": "[1, 2", "std": "[1, 2, 3]"},
        {"mean": "[1, 2, 3]", "std": "[0, 1, 1]"},
        {"mean": "[1, 2]", "std": "[1, 2, 3]"},
        {"mean": "[NaN, 2, 3]", "std": "[1, 2, 3]"},
        {"images": "[" * 100_000},
        {"images": '{"classes": 3}'},
        {"images": "[1]"},
    ],
)
def test_a_forged_record_is_one_line(said: dict[str, str], tmp_path: Path) -> None:
    save_weights(tiny.network(), tmp_path / "w.safetensors", {"network": "tiny", **said})
    with pytest.raises(InputError, match="has an invalid record of its images") as caught:
        Known.of(Trained.of(tmp_path / "w.safetensors").source, tmp_path)
    assert "\n" not in str(caught.value)


def test_equal_normalisations_leave_the_network_alone() -> None:
    network = tiny.network()
    stem = network.stem
    rescale(network, DATA.normalisation, DATA.normalisation)
    assert network.stem is stem


def test_duplicate_names_cannot_be_matched() -> None:
    known = Known(("a", "a", "b", "c"))
    with pytest.raises(InputError, match="was trained on 4 classes"):
        Fit.of(known, replace(DATA, classes=("a", "b", "c")), "it")
    assert Fit.of(known, replace(DATA, classes=known.classes or ()), "it").columns is None
