"""Data sets of the `datasets` library, from folders that it wrote; nothing is downloaded."""

from __future__ import annotations

import builtins
import io
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sftn.data.dataset import fingerprint
from sftn.data.load import load
from sftn.data.sources.hugging_face import _splits
from sftn.errors import InputError


def test_the_library_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return found(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match=r"pip install 'sftn\[hf\]'"):
        load("hf:mnist")


def test_splits_have_the_names_that_folders_have(caplog: pytest.LogCaptureFixture) -> None:
    def splits(**rows: int) -> dict[str, int]:
        return {
            part: len(table) for part, table in _splits({name: range(n) for name, n in rows.items()}, "hf:x").items()
        }

    assert splits(training=5, dev=3, evaluation=2) == {"train": 5, "validation": 3, "test": 2}
    assert splits(anything=5) == {"train": 5}
    assert not caplog.messages
    assert splits(train=5, test=2, original=7) == {"train": 5, "test": 2}
    assert splits(train=5, unlabeled=8) == {"train": 5}
    left = ["hf:x: original is left out with 7 images", "hf:x: unlabeled is left out with 8 images"]
    assert [line.partition(",")[0] for line in caplog.messages] == left
    with pytest.raises(InputError, match="has train beside second, whose name isn't known: rename it to test"):
        splits(train=5, second=5)
    with pytest.raises(InputError, match="the splits test, val but no train"):
        splits(test=5, val=5)
    with pytest.raises(InputError, match="train and training, which both mean train"):
        splits(train=5, training=5, test=5)


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return pytest.importorskip("datasets", reason="the extra hf is not installed")


def image(value: int) -> dict[str, Any]:
    file = io.BytesIO()
    Image.new("RGB", (20, 16), (value, value, value)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def table(datasets: Any, values: list[int], labels: list[Any], kind: Any = None, column: str = "label") -> Any:
    features = {"picture": datasets.Image(), column: kind or datasets.ClassLabel(names=["a", "b"])}
    rows = {"picture": [image(value) for value in values], column: labels}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def test_what_was_saved_comes_back(datasets: Any, tmp_path: Path) -> None:
    splits = {
        "train": table(datasets, [1, 2, 3, 4], [1, 0, 1, 0]),
        "test": table(datasets, [5, 6], [-1, -1]),
        "validation": table(datasets, [7, 8], [1, 0]),
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "set")
    data = load("hf:set", data_dir=tmp_path, size=8)
    assert data.train.images[:, 0, 0, 0].tolist() == [1, 2, 3, 4]
    assert data.train.labels.tolist() == [1, 0, 1, 0]
    assert data.test.images[:, 0, 0, 0].tolist() == [7, 8], "test has no labels"
    streamed = load(f"hf:{tmp_path / 'set'}", size=8, stream=True, workers=1)
    assert streamed.classes == ("a", "b")
    assert streamed.normalisation[0].tolist() == [2.5] * 3
    assert fingerprint(streamed) == fingerprint(load("hf:set", data_dir=tmp_path, size=8, stream=True))


def test_one_split_is_parted_and_names_become_classes(datasets: Any, tmp_path: Path) -> None:
    labels = ["dog", "cat"] * 10
    table(datasets, list(range(20)), labels, datasets.Value("string")).save_to_disk(tmp_path / "one")
    data = load(f"hf:{tmp_path / 'one'}", size=4)
    assert data.classes == ("cat", "dog")
    assert (len(data.train), data.test.labels.tolist().count(0), data.test.labels.tolist().count(1)) == (16, 2, 2)
    values = [*data.train.images[:, 0, 0, 0].tolist(), *data.test.images[:, 0, 0, 0].tolist()]
    assert sorted(values) == list(range(20))
    assert [value % 2 for value in values] == [1 - label for label in [*data.train.labels, *data.test.labels]]


def test_what_cannot_be_told_is_refused(datasets: Any, tmp_path: Path) -> None:
    def refused(splits: dict[str, Any], match: str) -> None:
        place = tmp_path / str(np.random.default_rng().integers(2**60))
        datasets.DatasetDict(splits).save_to_disk(place)
        with pytest.raises(InputError, match=match) as error:
            load(f"hf:{place}")
        assert "\n" not in str(error.value)

    number = datasets.Value("int64")
    refused({"train": table(datasets, [1, 2], [0, 1], number, "kind")}, "no column of labels")
    refused({"train": table(datasets, [1, 2], [0, -1])}, "row 1 of train has no class")
    refused({"train": table(datasets, [1, 2], [0, 0])}, "images of 1 class|one image")
    refused({"a": table(datasets, [1], [0]), "b": table(datasets, [1], [0])}, "no train")
    wrong = table(datasets, [1, 2], [3, 4], number)
    refused({"train": table(datasets, [1, 2], [3, 5], number), "test": wrong}, "the class 4, which train lacks")
    with pytest.raises(InputError, match="cannot be loaded"):
        load(f"hf:{tmp_path / 'nothing'}")


def test_no_code_of_a_data_set_is_run(datasets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "set.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    with pytest.raises(InputError, match="cannot be loaded"):
        load(f"hf:{tmp_path / 'set'}")
    monkeypatch.setattr(datasets, "__version__", "3.6.0")
    with pytest.raises(InputError, match=r"runs code found in data sets: pip install -U 'sftn\[hf\]'"):
        load(f"hf:{tmp_path / 'set'}")
    assert not (tmp_path / "canary").exists()


def test_a_folder_cannot_cause_downloads(datasets: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x.csv"
        (tmp_path / "README.md").write_text(
            f"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {address}\n---\n"
        )
        connect = socket.socket.connect
        with pytest.raises(InputError, match="cannot be loaded"):
            load(f"hf:{tmp_path}")
        assert socket.socket.connect is connect
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_forged_lengths_are_refused(datasets: Any, tmp_path: Path) -> None:
    table(datasets, [1, 2, 3, 4], [0, 1, 0, 1]).save_to_disk(tmp_path / "set")
    load(f"hf:{tmp_path / 'set'}", size=4)
    (path,) = (tmp_path / "set").glob("*.arrow")
    length = len(image(1)["bytes"]).to_bytes(4, "little")  # where the second image begins
    content = path.read_bytes()
    assert length in content
    path.write_bytes(content.replace(length, b"\xff\xff\xff\x7f"))
    with pytest.raises(InputError, match="cannot be loaded"):
        load(f"hf:{tmp_path / 'set'}", size=4)
