from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sftn.data.dataset import Dataset, Split
from sftn.data.load import SOURCES
from sftn.errors import InputError
from sftn.runs.folder import RunFolder
from sftn.runs.runner import train
from sftn.runs.trained import Trained
from sftn.spec.run import Weights
from sftn.storage.json_files import sha256
from sftn.tasks.recipes import objective
from tests.support import tiny

DATA = tiny.dataset()
TEACHER = tiny.run(DATA, "wide", epochs=1)
STUDENT = tiny.run(DATA, epochs=1, teacher=TEACHER, objective=objective("kd"))


@pytest.fixture
def out(tmp_path: Path, tiny_networks: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a teacher and its student, whose images are known by name."""
    monkeypatch.setitem(SOURCES, "tiny", lambda request: DATA)
    for run in (TEACHER, STUDENT):
        train(run, DATA, tmp_path / "runs")
    return tmp_path / "runs"


def same(found: Trained, weights: Path, dataset: Dataset = DATA) -> bool:
    """Whether a network is that of a file."""
    from sftn.networks.weights import read_state

    own, theirs = found.network(dataset).state_dict(), read_state(weights)
    return own.keys() == theirs.keys() and all(torch.equal(own[key], theirs[key]) for key in own)


def test_a_run_is_known_by_its_folder_and_its_teacher_lies_beside_it(out: Path) -> None:
    student = Trained.of(out / STUDENT.folder)
    assert (student.source, student.run, student.identity) == (STUDENT, STUDENT, STUDENT.id)
    assert student.teacher() == Trained.of(out / TEACHER.folder)
    for found, run in ((student, STUDENT), (student.teacher(), TEACHER)):
        weights = RunFolder(out / run.folder).weights
        assert same(found, weights)
        alone = found.network_alone(tiny.IMAGE[1:])
        assert torch.equal(alone.head.linear.weight, found.network(DATA).head.linear.weight)
        assert (found.result() or {})["weights_sha256"] == sha256(weights)
    with pytest.raises(InputError, match=r"no teacher of .* is recorded"):
        student.teacher().teacher()


def test_elsewhere_a_run_is_known_by_its_weights_and_still_has_images_and_a_teacher(out: Path, tmp_path: Path) -> None:
    folder, moved = RunFolder(out / STUDENT.folder), out / "mine"
    for found in (Trained.of(folder.path, out=tmp_path), Trained.of(shutil.copytree(folder.path, moved))):
        assert isinstance(found.source, Weights)
        assert (found.source.network, found.identity) == ("tiny", sha256(folder.weights))
        assert (found.run, found.name) == (STUDENT, Trained.of(folder.path).name)
        assert same(found, folder.weights)
        assert found.images() is DATA
        assert found.teacher().source == TEACHER
        assert same(found.teacher(), RunFolder(out / TEACHER.folder).weights)


def test_a_file_is_of_the_network_that_it_names_and_of_no_images(out: Path) -> None:
    path = RunFolder(out / STUDENT.folder).weights
    found = Trained.of(path)
    assert (found.source, found.run, found.result()) == (Weights("tiny", sha256(path), str(path)), None, None)
    assert same(found, path)
    assert found.images("tiny") is DATA
    with pytest.raises(InputError, match="does not record its data set: name one with --data"):
        found.images()
    torch.save({"head.weight": torch.zeros(2, 2)}, out / "foreign.pth")
    with pytest.raises(InputError, match="does not record its network"):
        Trained.of(out / "foreign.pth")
    with pytest.raises(InputError, match="neither the folder of a run nor a weights file"):
        Trained.of(out / "nothing")


def test_images_that_changed_are_reported(
    out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = Trained.of(out / STUDENT.folder)
    assert found.images() is DATA
    assert not [line for line in caplog.messages if "have changed" in line]
    other = replace(DATA, test=Split(255 - DATA.test.images, DATA.test.labels))
    monkeypatch.setitem(SOURCES, "tiny", lambda request: other)
    assert found.images("tiny") is other, "named, they are the run's own, too"
    (said,) = (line for line in caplog.messages if "have changed" in line)
    assert said.startswith("the images of tiny have changed since tiny-kd-from-wide (seed 0) was trained")


def test_a_run_that_is_not_done_has_no_network(out: Path) -> None:
    folder = RunFolder(out / STUDENT.folder)
    folder.result_json.unlink()
    with pytest.raises(InputError, match=r"tiny-kd-from-wide is not trained yet: .* has no result"):
        Trained.of(folder.path).network(DATA)
    folder.weights.unlink()
    with pytest.raises(InputError, match="is not trained yet: there is no"):
        Trained.of(folder.path).network_alone(tiny.IMAGE[1:])
