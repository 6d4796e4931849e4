"""Lists and tables beside images: ImageNet's classes, lists of damaged images, tables of the datasets library."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path

from reliability import hostile
from reliability.pictures import image_file
from reliability.reader import Bad, Reader, needing
from sftn.data.load import load
from sftn.data.sources.from_files import recalled


def _listed(folder: Path) -> None:
    found = recalled(folder / "damaged.json", 9)
    if found is not None and not all(type(i) is int and 0 <= i < 9 and text.isprintable() for i, text in found):
        raise AssertionError(f"believed {found}")


def _lists(canary: Path) -> Bad:
    yield from hostile.texts()
    for strange in (
        [[9, "x"]],
        [[-1, "x"]],
        [[1e308, "x"]],
        [[0, "\x1b[2J"]],
        [[0, {"a": 1}]],
        [[0]],
        ["ab"],
        {"a": 1},
    ):
        yield str(strange), json.dumps(strange).encode()


def _solution() -> bytes:
    return b"ImageId,PredictionString\nv1,n01 1 2 3 4\nv2,n02 1 2 3 4\n"


def _solutions(canary: Path) -> Bad:
    yield from hostile.texts()
    yield "16 MB of short rows", b"".join(b"%d,a\n" % i for i in range(1_500_000))
    yield "8 million empty rows", b"a\n" + b",\n" * 8_000_000
    yield "a field of 1 MB", b"a,b\n" + b"x" * 10**6
    yield "a quote without an end", b'a,b\n"' + b"x\n" * 10**6
    for wnid in ("../../x", "\x1b[2J", "[/x]", "n03"):
        yield f"the class {wnid!r}", f"a,b\nv1,{wnid} 1\nv2,n02 1\n".encode()


def _beside_solution(folder: Path) -> None:
    for name in ("train/n01/1.png", "train/n02/1.png", "val/v1.png", "val/v2.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(image_file("PNG"))


@cache
def _saved() -> dict[str, bytes]:
    """Make the files of a table that the datasets library saved."""
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    picture = {"bytes": image_file("PNG"), "path": None}
    table = datasets.Dataset.from_dict({"image": [picture] * 6, "label": [0, 1] * 3}, features=features)
    with tempfile.TemporaryDirectory() as folder:
        table.save_to_disk(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _beside_saved(folder: Path) -> None:
    for name, content in _saved().items():
        if not (folder / name).exists():
            (folder / name).write_bytes(content)


def _load_saved(folder: Path) -> None:
    load(f"hf:{folder}")


def _states(canary: Path) -> Bad:
    yield from hostile.texts()
    for name in ("../../x.arrow", "/etc/passwd", "http://127.0.0.1:9/x.arrow"):
        record = json.loads(_saved()["state.json"]) | {"_data_files": [{"filename": name}]}
        yield f"its rows in {name}", json.dumps(record).encode()


_ARROW, _INFO = "data-00000-of-00001.arrow", "dataset_info.json"
TABLES = (
    Reader("list of damaged images", "damaged.json", lambda: b'[[0, "x is no image"]]', _listed, _lists),
    Reader(
        "LOC_val_solution.csv",
        "LOC_val_solution.csv",
        _solution,
        lambda folder: load("imagenet", data_dir=folder),
        _solutions,
        _beside_solution,
    ),
    *needing(
        ("datasets",),
        Reader("hf, state.json", "state.json", lambda: _saved()["state.json"], _load_saved, _states, _beside_saved),
        Reader(
            "hf, dataset_info.json",
            _INFO,
            lambda: _saved()[_INFO],
            _load_saved,
            beside=_beside_saved,
            damage=hostile.damaged_json,
        ),
        Reader("hf, .arrow", _ARROW, lambda: _saved()[_ARROW], _load_saved, beside=_beside_saved),
    ),
)
