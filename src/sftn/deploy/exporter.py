"""Export a run: the file, the check of it, what int8 costs and saves, and the card beside it."""

from __future__ import annotations

import hashlib
import logging
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sftn.data.dataset import Dataset
from sftn.deploy import model_card
from sftn.deploy.classifier import Classifier
from sftn.deploy.onnx_file import Session, package, to_onnx
from sftn.deploy.parity import Agreement, compare, noise, some
from sftn.deploy.preprocessing import config
from sftn.deploy.quantize import File, Measured, measure, quantize
from sftn.deploy.source import Source
from sftn.deploy.torch_export import Program, to_torch_export
from sftn.errors import InputError, unknown
from sftn.spec.run import FORMAT
from sftn.storage.atomic import make_folder, write_atomically
from sftn.storage.json_files import read_json, write_json

logger = logging.getLogger(__name__)

FILES = {"onnx": "model.onnx", "safetensors": "model.safetensors", "torch-export": "model.pt2"}
"""The formats, and what their files are called."""
INT8 = "model.int8.onnx"
RECORD, CONFIG = "export.json", "config.json"
CHECKED = 100
"""Images that a file is checked with, unless asked otherwise."""


@dataclass(frozen=True)
class Exported:
    """What an export left."""

    folder: Path
    files: tuple[Path, ...]
    agreement: Agreement | None
    """None for weights alone, which are read again and compared bit by bit."""
    measured: tuple[Measured, ...]
    """Float32 and int8, the student's and the teacher's, where int8 was asked for."""


def export(
    run_folder: Path,
    to: str,
    *,
    out: Path | None = None,
    check_images: int = CHECKED,
    int8: bool = False,
    licence: str | None = None,
    data: str | None = None,
    data_dir: Path | None = None,
) -> Exported:
    """Write a finished run's network for others, with its normalisation and labels inside, and check what was written.

    Args:
        run_folder: of the run.
        to: one of `FILES`.
        out: where the files go; `export` in the run's folder if None.
        check_images: test images that the file is compared with PyTorch on.
        int8: also write the file in int8, and measure both, and the teacher's.
        licence: of the weights, for the card.
        data: other images than the run's, to check and measure with.
        data_dir: where the files of the images are.

    Raises:
        InputError: the run is not finished, a package is missing, the network cannot be exported, the file does not
            answer as PyTorch does, the images for int8 are not there, or the folder cannot be written.
    """
    if to not in FILES:
        raise unknown("format", to, FILES)
    if int8 and to != "onnx":
        raise InputError(f"--quantize is for ONNX files: leave it out, or give --to onnx instead of {to}")
    if check_images < 1:
        raise InputError(f"--check-images {check_images}: give at least 1")
    model_card.check_licence(licence)
    for name in ("onnx", "onnxruntime", "onnxscript") if to == "onnx" else ():
        package(name)
    source = Source.of(run_folder, data, data_dir)
    dataset = None
    if to != "safetensors" or data is not None:
        try:
            dataset = source.images(data, data_dir)
        except InputError as error:
            if int8 or data is not None:
                raise
            logger.warning(f"checked on noise, because the run's images cannot be had ({error})")
    place = run_folder / "export" if out is None else out
    make_folder(place)
    model_card.check_place(place)
    about = config(source.run.network, source.classifier.images, source.run.id)
    content, agreement = _made(source.classifier, to, about, dataset, check_images, source.run.id)
    contents = {FILES[to]: content}
    measured: Sequence[Measured] = ()
    threads = thread_count()
    if int8:
        assert dataset is not None
        contents[INT8] = quantize(content, dataset.train)
        listed = [(source.run.network, contents[FILES[to]], contents[INT8])]
        listed += _teacher(source, dataset)
        roles = ("student", "teacher") if len(listed) > 1 else ("network",)
        files = [
            File(role, name, numbers, made)
            for role, (name, *both) in zip(roles, listed)
            for numbers, made in zip(("float32", "int8"), both)
        ]
        measured = measure(files, dataset.test, threads)
    for name, made in contents.items():
        write_atomically(place / name, made)
    write_json(place / CONFIG, about)
    entry = {
        "folder": str(place.resolve()),
        "files": list(contents),
        "bytes": {name: len(made) for name, made in contents.items()},
        "sha256": {name: hashlib.sha256(made).hexdigest() for name, made in contents.items()},
        "check": None if agreement is None else agreement.record(),
        "measured": [row.record() for row in measured],
        "threads": threads,
        "environment": _environment(to),
        "license": licence,
    }
    entries = _record(run_folder, to, entry)
    try:
        here = [known for known in entries.values() if known["folder"] == entry["folder"]]
        text = model_card.card(source, here, licence)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{run_folder / RECORD} is damaged ({error!r}): remove it and export again") from error
    model_card.write(place, text)
    return Exported(place, tuple(place / name for name in contents), agreement, tuple(measured))


def thread_count() -> int:
    """Of onnxruntime while it is timed: as many as PyTorch uses, so that OMP_NUM_THREADS counts."""
    return torch.get_num_threads()


def _made(
    classifier: Classifier, to: str, about: Mapping[str, Any], dataset: Dataset | None, count: int, run: str
) -> tuple[bytes, Agreement | None]:
    """What a file holds, and how near it is to PyTorch."""
    if to == "safetensors":
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / FILES[to]
            classifier.save(path, run)
            again, own = Classifier.load(path).network.state_dict(), classifier.network.state_dict()
            assert again.keys() == own.keys()
            assert all(torch.equal(again[key], own[key]) for key in own)
            return path.read_bytes(), None
    if dataset is None:
        pixels, kind = noise(classifier.images.shape, count), "images of noise"
    else:
        pixels, kind = some(dataset.test, count), "test images"
    if to == "onnx":
        content = to_onnx(classifier, dict(about))
        return content, compare(classifier, Session(content).logits, pixels, kind, "ONNX")
    content = to_torch_export(classifier, dict(about))
    return content, compare(classifier, Program(content).logits, pixels, kind, "torch.export's file")


def _teacher(student: Source, dataset: Dataset) -> list[tuple[str, bytes, bytes]]:
    """The teacher's name and its files, in float32 and int8; none where it cannot be had."""
    try:
        teacher = student.teacher()
        if teacher is None:
            return []
        content = to_onnx(teacher, config(teacher.name, teacher.images, ""))
        return [(teacher.name, content, quantize(content, dataset.train))]
    except InputError as error:
        logger.warning(f"the student is measured alone ({error})")
        return []


def _record(folder: Path, to: str, entry: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Add an export to those that the run's folder tells of."""
    path = folder / RECORD
    known: dict[str, dict[str, Any]] = {}
    if path.exists():
        known = read_json(path).get("exports", {})
        if not isinstance(known, dict):
            raise InputError(f"{path} is damaged: remove it and export again")
    known[to] = entry
    write_json(path, {"format": FORMAT, "exports": known})
    return known


def _environment(to: str) -> dict[str, str]:
    names = ("onnx", "onnxruntime") if to == "onnx" else ()
    versions = {name: str(package(name).__version__) for name in names}
    return {"torch": torch.__version__, **versions, "processor": platform.processor() or platform.machine()}
