"""ImageNet's official folders, and the table that is run on them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sftn.cli import main
from sftn.data.dataset import fingerprint
from sftn.data.load import load
from sftn.errors import InputError

WNIDS = ("n02000001", "n01000001")
REAL = Path(__file__).parents[4] / "shared" / "data" / "tiny-imagenet-200-small.zip"


def write(root: Path) -> Path:
    """6 training and 2 validation images of each of 2 classes."""
    rng = np.random.default_rng(0)
    for part, each in (("train", 6), ("val", 2)):
        for wnid in WNIDS:
            (root / part / wnid).mkdir(parents=True)
            for i in range(each):
                pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / wnid / f"{part}_{wnid}_{i}.JPEG")
    return root


def refused(root: Path, match: str) -> None:
    with pytest.raises(InputError, match=match) as error:
        load("imagenet", data_dir=root)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("within", ["", "imagenet", "ILSVRC/Data/CLS-LOC"])
def test_official_folders_are_streamed(within: str, tmp_path: Path) -> None:
    write(tmp_path / within)
    data = load("imagenet", data_dir=tmp_path)
    assert (data.image, data.resize, data.streamed, data.padding, data.flip) == ((3, 224, 224), 256, True, 0, True)
    assert data.classes == tuple(sorted(WNIDS))
    assert (len(data.train), len(data.test)) == (12, 4)
    assert data.normalisation[0].tolist() == pytest.approx([123.675, 116.28, 103.53])


def test_the_splits_may_have_other_names_but_the_official_ones_go_first(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "val").rename(root / "validation")
    assert len(load("imagenet", data_dir=root).test) == 4
    (root / "validation").rename(root / "val")
    (root / "dev").mkdir()
    assert len(load("imagenet", data_dir=root).test) == 4


def test_a_flat_val_needs_its_list_of_classes(tmp_path: Path) -> None:
    root = write(tmp_path / "ILSVRC" / "Data" / "CLS-LOC")
    whole = load("imagenet", data_dir=tmp_path)
    lines = ["ImageId,PredictionString"]
    for wnid in WNIDS:
        for path in sorted((root / "val" / wnid).iterdir()):
            lines.append(f"{path.stem},{wnid} 1 2 30 40 {wnid} 5 5 9 9")
            path.rename(root / "val" / path.name)
        (root / "val" / wnid).rmdir()
    refused(tmp_path, "LOC_val_solution.csv is not beside it")
    solution = tmp_path / "LOC_val_solution.csv"
    solution.write_text("\n".join(lines))
    flat = load("imagenet", data_dir=tmp_path)
    assert flat.test.labels.tolist() == whole.test.labels.tolist() == [0, 0, 1, 1]
    assert fingerprint(flat) != fingerprint(whole), "names within the source are part of it"
    solution.write_text("\n".join(lines[:-1]))
    refused(tmp_path, "does not give the class of val_n01000001_1.JPEG")
    solution.write_text("\n".join(lines).replace("n01000001 1", "n03000003 1"))
    refused(tmp_path, "has the class n03000003, which")


def test_wrong_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    refused(tmp_path, "imagenet is missing")
    root = write(tmp_path / "imagenet")
    with pytest.raises(InputError, match="always streamed"):
        load("imagenet", data_dir=tmp_path, stream=False)
    (root / "train" / WNIDS[0]).rename(root / "train" / "cat")
    refused(tmp_path, "train/cat is not named after a WordNet id: use folder:")


@pytest.mark.skipif(not REAL.exists(), reason=f"no real Tiny-ImageNet at {REAL}")
def test_the_table_is_walked_on_a_small_folder_of_real_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(REAL) as archive:
        names = [name for name in archive.namelist() if name.endswith(".JPEG") and "/train/" in name]
        for wnid in sorted({name.split("/")[2] for name in names})[:4]:
            for i, name in enumerate(name for name in names if name.split("/")[2] == wnid):
                path = tmp_path / "images" / ("val" if i < 5 else "train") / wnid / Path(name).name
                path.parent.mkdir(parents=True, exist_ok=True)
                if i < 15:
                    path.write_bytes(archive.read(name))
    small = ["--smoke", "--seeds", "1", "--methods", "kd", "crd", "--timing-seconds", "0", "--workers", "0"]
    where = ["--data-dir", str(tmp_path / "images"), "--out", str(tmp_path / "runs"), "--device", "cpu"]
    main(["reproduce", "imagenet", *small, *where])
    said = capsys.readouterr().out
    assert "All runs of imagenet are done" in said
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 7
    main(["report", "imagenet", "--out", str(tmp_path / "runs")])
    assert "SMOKE TEST" in capsys.readouterr().out
