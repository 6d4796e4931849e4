"""CIFAR's official layout: small fakes of it, damaged and hostile ones, and the real CIFAR-100 where it is."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sftn.data.load import load
from sftn.data.sources import cifar
from sftn.errors import InputError
from tests.support.cifar_files import contents, dump, pack, write

REAL = Path(__file__).parents[4] / "shared" / "data"
C100 = cifar.CIFAR100


@pytest.fixture(autouse=True)
def _nowhere_else(tmp_path_factory, monkeypatch):
    """No data of the machine's user comes into a test."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home))
    for name in ("SFTN_DATA", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("layout", [cifar.CIFAR10, C100], ids=lambda layout: layout.name)
@pytest.mark.parametrize("packed", [False, True])
def test_the_official_layout_is_read(layout, packed, tmp_path):
    write(tmp_path, layout)
    if packed:
        pack(tmp_path, layout)
    before = sorted(tmp_path.rglob("*"))
    dataset, expected = load(layout.name, data_dir=tmp_path), contents(layout)
    pixels = np.concatenate([expected[name][b"data"] for name in layout.train])
    assert dataset.image == (3, 32, 32)
    assert np.array_equal(dataset.train.images.numpy(), pixels.reshape(-1, 3, 32, 32))
    assert np.array_equal(dataset.test.images.numpy().reshape(-1, 3072), expected[layout.test][b"data"])
    labels = [label for name in layout.train for label in expected[name][layout.labels.encode()]]
    assert dataset.train.labels.tolist() == labels
    assert dataset.train.labels.dtype == torch.int64
    assert dataset.classes == tuple(f"class {i}" for i in range(layout.classes))
    assert (dataset.flip, dataset.padding, dataset.name) == (True, 4, layout.name)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_files_written_again_by_today_s_python_are_read(protocol, tmp_path):
    again = {
        name: pickle.dumps({key.decode(): item for key, item in value.items()}, protocol)
        for name, value in contents(C100).items()
    }
    write(tmp_path, C100, **again)
    assert np.array_equal(
        load("cifar100", data_dir=tmp_path).test.images.flatten(1).numpy(), contents(C100)["test"][b"data"]
    )


def test_the_files_are_looked_for_in_order(tmp_path, monkeypatch):
    for name in ("here", "named"):
        write(tmp_path / name, C100)
    write(Path("data"), C100)

    def found(data_dir: Path | None) -> Path | None:
        return cifar._find(C100, data_dir)

    assert found(None) == Path("data/cifar-100-python")
    monkeypatch.setenv("SFTN_DATA", str(tmp_path / "named"))
    assert found(None) == tmp_path / "named" / "cifar-100-python"
    assert found(tmp_path / "here") == tmp_path / "here" / "cifar-100-python"
    assert found(tmp_path / "here" / "cifar-100-python") == tmp_path / "here" / "cifar-100-python"
    archive = pack(tmp_path / "here", C100)
    assert found(tmp_path / "here") == found(archive) == archive
    assert found(tmp_path / "empty") == tmp_path / "named" / "cifar-100-python"


def test_missing_files_are_reported_with_places_and_remedy(tmp_path):
    with pytest.raises(InputError) as error:
        load("cifar100", data_dir=tmp_path)
    for part in (str(tmp_path), "cifar-100-python.tar.gz", "--data-dir", "https://www.cs.toronto.edu/~kriz/", "data"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="32×32"):
        load("cifar10", data_dir=tmp_path, size=64)


class Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_pickle_runs_nothing(protocol, tmp_path):
    target = tmp_path / "ran"
    write(tmp_path, C100, train=pickle.dumps({b"data": Evil(target)}, protocol))
    with pytest.raises(InputError, match=r"train is not a file of cifar100: it refers to 'posix.mkdir'"):
        load("cifar100", data_dir=tmp_path)
    assert not target.exists()
    pickle.loads(pickle.dumps(Evil(target), protocol))
    assert target.exists()  # so the pickle was armed


def changed(layout: cifar.Layout, name: str, **items: Any) -> bytes:
    value = contents(layout)[name]
    value.update({key.encode(): item for key, item in items.items()})
    return dump({key: item for key, item in value.items() if item is not None})


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (dump(contents(C100)["train"])[:20000], "truncated"),
        (b"", "truncated"),
        (dump([1, 2]), "no dict"),
        (changed(C100, "train", data=None), "3072"),
        (changed(C100, "train", data=np.zeros((12, 3071), np.uint8)), "3072"),
        (changed(C100, "train", data=b"abc"), "3072"),
        (pickle.dumps({"data": np.zeros((12, 3072), np.int64), "fine_labels": [0] * 12}), "3072"),
        (changed(C100, "train", fine_labels=None), "fine_labels"),
        (changed(C100, "train", fine_labels=[b"cat"] * 12), "fine_labels"),
        (changed(C100, "train", fine_labels=[0] * 11), "12 images and 11 labels"),
        (changed(C100, "train", fine_labels=[0] * 11 + [100]), "0 to 100 instead of 0 to 99"),
        (changed(C100, "train", fine_labels=[0] * 11 + [-1]), "-1 to 0"),
        (changed(C100, "train", data=np.zeros((0, 3072), np.uint8), fine_labels=[]), "0 images"),
        (dump(contents(cifar.CIFAR10)["test_batch"]), "fine_labels"),
    ],
)
def test_a_damaged_or_foreign_file_is_named(raw, message, tmp_path):
    folder = write(tmp_path, C100, train=raw)
    with pytest.raises(InputError, match=message) as error:
        load("cifar100", data_dir=tmp_path)
    assert f"{folder}: train" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_wrong_names_are_named(tmp_path):
    folder = write(tmp_path, C100, meta=dump({b"fine_label_names": [b"only one"]}))
    with pytest.raises(InputError, match="does not name 100 classes"):
        load("cifar100", data_dir=tmp_path)
    (folder / "test").unlink()
    with pytest.raises(InputError, match="lacks the file test"):
        load("cifar100", data_dir=tmp_path)


def test_a_damaged_archive_is_named(tmp_path):
    write(tmp_path, C100)
    archive = pack(tmp_path, C100)
    whole = archive.read_bytes()
    for raw in (whole[: len(whole) // 2], b"no archive", b"", whole[:500] + bytes(200) + whole[700:]):
        archive.write_bytes(raw)
        with pytest.raises(InputError, match=r"cifar-100-python\.tar\.gz is truncated or not a \.tar\.gz"):
            load("cifar100", data_dir=tmp_path)


def test_an_archive_that_holds_too_much_is_refused(tmp_path, monkeypatch):
    write(tmp_path, C100)
    pack(tmp_path, C100)
    monkeypatch.setattr(cifar, "LARGEST", 2**16)
    with pytest.raises(InputError, match="holds more than"):
        load("cifar100", data_dir=tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_links_and_strangers_of_an_archive_are_passed_over(kind, tmp_path):
    archive = tmp_path / C100.archive
    secret = tmp_path / "secret"
    secret.write_bytes(dump(contents(C100)["test"]))
    outside = tarfile.TarInfo("../outside")
    outside.size = 3
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(outside, io.BytesIO(b"abc"))
        for name, value in contents(C100).items():
            member = tarfile.TarInfo(f"{C100.folder}/{name}")
            raw = dump(value)
            if name == "test":
                member.type, member.linkname, raw = kind, str(secret), b""
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    with pytest.raises(InputError, match="lacks the file test"):
        load("cifar100", data_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [C100.archive, "secret"]
    assert not (tmp_path.parent / "outside").exists()


def test_a_download_is_checked_and_arrives_whole_or_not_at_all(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    write(source, C100)
    archive = pack(source, C100)
    served = replace(C100, address=f"{source.as_uri()}/", md5=hashlib.md5(archive.read_bytes()).hexdigest())
    request = cifar.Request(data_dir=target, download=True)
    with pytest.raises(InputError, match="MD5"):
        cifar.load(replace(served, md5="0" * 32), request)
    with pytest.raises(InputError, match="could not be downloaded"):
        cifar.load(replace(served, address=f"{tmp_path.as_uri()}/nowhere/"), request)
    assert list(target.iterdir()) == []
    with pytest.raises(InputError, match="is missing"):
        cifar.load(served, replace(request, download=False))
    assert len(cifar.load(served, request).test) == 12
    assert [path.name for path in target.iterdir()] == [C100.archive]


@pytest.mark.slow
@pytest.mark.skipif(not (REAL / "cifar100").is_dir(), reason="../shared/data/cifar100 is not there")
def test_the_real_cifar100(tmp_path):
    subprocess.run([sys.executable, str(REAL / "unpack_cifar100.py"), str(tmp_path)], check=True, capture_output=True)
    dataset = load("cifar100", data_dir=tmp_path)
    # The digests of the pixels, images as (N, 32, 32, 3), that the unpacking script checks too.
    for split, count, digest in ((dataset.train, 50000, "4e457917601a66ae"), (dataset.test, 10000, "8532fd42ce092c66")):
        assert split.labels.bincount().tolist() == [count // 100] * 100
        pixels = split.images.permute(0, 2, 3, 1).contiguous().numpy()
        assert hashlib.sha256(pixels.data).hexdigest().startswith(digest)
    assert dataset.classes[:3] == ("apple", "aquarium_fish", "baby")
    mean, std = dataset.normalisation
    # The training set's statistics as everybody quotes them.
    assert (mean / 255 - torch.tensor([0.5071, 0.4865, 0.4409])).abs().max() < 1e-4
    assert (std / 255 - torch.tensor([0.2673, 0.2564, 0.2762])).abs().max() < 1e-4
