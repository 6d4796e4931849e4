"""Corrupted images in files, and accuracy on them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sftn.analysis.corrupted import Corrupted, find, generate
from sftn.analysis.corruption import Robustness, robustness
from sftn.analysis.corruptions import SEVERITIES, corrupt
from sftn.data.dataset import Dataset, Split
from sftn.errors import InputError
from sftn.runtime.device import make_fabric
from sftn.training.evaluate import evaluate
from tests.support import tiny
from tests.support.images import images

KINDS = ("fog", "contrast")


def dataset(name: str = "cifar100", count: int = 20) -> Dataset:
    split = Split(torch.from_numpy(images(count)).permute(0, 3, 1, 2), torch.arange(count) % tiny.CLASSES)
    return Dataset(name, split, split, tuple("abcd"))


def official(root: Path, data: Dataset, kinds: tuple[str, ...] = KINDS) -> Path:
    """Files in the layout of the official ones."""
    folder = root / "CIFAR-100-C"
    folder.mkdir(parents=True)
    pixels = data.test.images.permute(0, 2, 3, 1).numpy()
    for kind in kinds:
        np.save(folder / f"{kind}.npy", np.concatenate([corrupt(pixels, kind, s) for s in SEVERITIES]))
    np.save(folder / "labels.npy", np.tile(data.test.labels.numpy(), 5))
    return folder


def test_generated_files_have_the_official_layout_and_are_made_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sftn.analysis")
    data = dataset()
    made = generate(data, tmp_path, KINDS)
    assert caplog.messages == [f"corrupting 20 test images: {kind} ({n} of 2)" for n, kind in enumerate(KINDS, 1)]
    pixels = data.test.images.permute(0, 2, 3, 1).numpy()
    stored = np.load(made.folder / "fog.npy", allow_pickle=False)
    assert (stored.shape, stored.dtype) == ((100, 32, 32, 3), np.uint8)
    assert np.array_equal(stored, np.concatenate([corrupt(pixels, "fog", s) for s in SEVERITIES]))
    assert np.load(made.folder / "labels.npy").tolist() == data.test.labels.tolist() * 5
    record = json.loads((made.folder / "generated.json").read_text())
    assert record["generated"] is True
    assert "not the official files" in record["note"]
    before = {path.name: path.stat().st_mtime_ns for path in made.folder.iterdir()}
    again = generate(data, tmp_path, KINDS)
    assert (again.folder, len(caplog.messages)) == (made.folder, 2)
    assert before == {path.name: path.stat().st_mtime_ns for path in made.folder.iterdir()}
    assert sorted(before) == ["contrast.npy", "fog.npy", "generated.json", "labels.npy"]
    assert torch.equal(made.split("fog", 2).images, torch.from_numpy(stored[20:40]).permute(0, 3, 1, 2))


def test_what_determines_the_images_names_the_folder(tmp_path: Path) -> None:
    data = dataset()
    other = replace(data, test=Split(data.test.images.flip(3), data.test.labels))
    folders = [
        generate(one, tmp_path, ["contrast"], seed=seed).folder for one, seed in ((data, 0), (data, 1), (other, 0))
    ]
    assert len(set(folders)) == 3
    assert all(folder.name.startswith("CIFAR-100-C-generated-") for folder in folders)


def test_threads_change_nothing(tmp_path: Path) -> None:
    data = dataset(count=520)
    one, two = (generate(data, tmp_path / str(n), ["gaussian_noise"], threads=n).folder for n in (1, 3))
    assert (one / "gaussian_noise.npy").read_bytes() == (two / "gaussian_noise.npy").read_bytes()


def test_official_files_are_found_and_may_have_more_images(tmp_path: Path) -> None:
    data = dataset()
    folder = official(tmp_path, data)
    for place in (tmp_path, folder):
        found = find(data, place)
        assert found is not None
        assert (found.folder, found.generated) == (folder, False)
    first = replace(data, test=Split(data.test.images[:7], data.test.labels[:7]))
    found = find(first, tmp_path)
    assert found is not None
    assert torch.equal(found.split("fog", 4).images, Corrupted(folder, data.test, False).split("fog", 4).images[:7])
    assert find(dataset("digits"), tmp_path) is None


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    data = dataset()
    folder = official(tmp_path, data)
    corrupted = Corrupted(folder, data.test, generated=False)

    def refused(match: str, name: str = "fog") -> None:
        with pytest.raises(InputError, match=match) as error:
            corrupted.split(name, 1)
        assert "\n" not in str(error.value)

    refused("spatter.npy is missing", "spatter")
    refused("did you mean fog", "fogg")
    whole = (folder / "fog.npy").read_bytes()
    for content in (whole[:-1], whole[:100], b"", b"hello"):
        (folder / "fog.npy").write_bytes(content)
        refused("fog.npy is truncated")
    np.save(folder / "fog.npy", np.array([object()]), allow_pickle=True)
    refused("fog.npy is truncated")
    np.save(folder / "fog.npy", np.zeros((100, 32, 32, 3), np.float32))
    refused("float32")
    np.save(folder / "fog.npy", np.zeros((99, 32, 32, 3), np.uint8))
    refused("belongs to other images")
    (folder / "fog.npy").write_bytes(whole)
    np.save(folder / "labels.npy", np.zeros(100, np.int64))
    refused("does not have the labels")
    np.save(folder / "labels.npy", np.zeros(101, np.int64))
    refused("labels")


def test_robustness_evaluates_each_severity(tmp_path: Path) -> None:
    data, network, fabric = dataset(), tiny.network(), make_fabric("cpu", "float32")
    corrupted = generate(data, tmp_path, KINDS)
    found = robustness(network, corrupted, data.normalisation, fabric, KINDS)
    assert found.clean == evaluate(network, data.test, data.normalisation, fabric)["accuracy"]
    for kind in KINDS:
        for severity in SEVERITIES:
            split = corrupted.split(kind, severity)
            expected = evaluate(network, split, data.normalisation, fabric)["accuracy"]
            assert found.accuracy[kind][severity - 1] == expected
    again = robustness(network, corrupted, data.normalisation, fabric, KINDS, batch=3)
    assert again == found


def test_averages_and_mce_by_hand() -> None:
    ours = Robustness("ours", 90, {"fog": [80, 70, 60, 50, 40], "snow": [60, 60, 60, 60, 60]})
    theirs = Robustness("theirs", 95, {"fog": [50, 50, 50, 50, 50], "snow": [80, 80, 80, 80, 80]})
    assert ours.averages == [90, 70, 65, 60, 55, 50]
    assert ours.mean == 60
    assert ours.mce(theirs) == pytest.approx((100 * 200 / 250 + 100 * 200 / 100) / 2)
    assert ours.mce(ours) == 100
    with pytest.raises(InputError, match="same corruptions"):
        ours.mce(Robustness("other", 90, {"fog": [1, 2, 3, 4, 5]}))
    with pytest.raises(InputError, match="no error"):
        ours.mce(Robustness("perfect", 100, {"fog": [100] * 5, "snow": [0] * 5}))


@pytest.mark.slow
def test_a_trained_network_suffers_with_severity(tmp_path: Path) -> None:
    from sftn.data.load import load
    from sftn.data.loader import Loader
    from sftn.networks import build
    from sftn.spec.schedule import Schedule
    from sftn.tasks.supervised import Supervised
    from sftn.training.loop import fit
    from sftn.training.phase import Phase

    data, fabric = load("digits"), make_fabric("cpu", "float32")
    network = build("resnet8", 10, 1)
    loader = Loader(data.train, batch=32, normalisation=data.normalisation, padding=2)
    task = Supervised(network)
    fit(Phase("train", task, (task,), Schedule(epochs=8)), loader, fabric)
    found = robustness(network, generate(data, tmp_path), data.normalisation, fabric)
    assert found.clean > 90
    averages = found.averages
    assert averages[0] > averages[1] > averages[3] > averages[5]
