"""Export of a run: the file, its check against PyTorch, the cost and gain of int8, and the model card."""

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
"""Formats and the names of their files."""
INT8 = "model.int8.onnx"
RECORD, CONFIG = "export.json", "config.json"
CHECKED = 100
"""Default number of images with which a file is checked."""


@dataclass(frozen=True)
class Exported:
    """The result of an export."""

    folder: Path
    files: tuple[Path, ...]
    agreement: Agreement | None
    """None for weights alone, which are read back and compared bit by bit."""
    measured: tuple[Measured, ...]
    """Float32 and int8 of student and teacher, if int8 was requested."""


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
    """Export a finished run's network, with its normalisation and labels inside, and check the file.

    Args:
        run_folder: folder of the run.
        to: one of `FILES`.
        out: folder for the files; `export` in the run's folder if None.
        check_images: number of test images on which the file is compared with PyTorch.
        int8: also write an int8 file, and measure both files and the teacher's.
        licence: licence of the weights, for the card.
        data: images to check and measure with, instead of the run's.
        data_dir: folder of these images' files.

    Raises:
        InputError: the run is not finished, a package is missing, the network cannot be exported, the file's results
            differ from PyTorch's, the images for int8 are missing, or the folder cannot be written.
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
            logger.warning(f"checked on noise, because the run's images cannot be loaded ({error})")
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
    """Threads of onnxruntime for timing: as many as PyTorch uses, so that OMP_NUM_THREADS applies."""
    return torch.get_num_threads()


def _made(
    classifier: Classifier, to: str, about: Mapping[str, Any], dataset: Dataset | None, count: int, run: str
) -> tuple[bytes, Agreement | None]:
    """Content of a file, and its agreement with PyTorch."""
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
    """Name of the teacher and its files, in float32 and int8; empty if it is not available."""
    try:
        teacher = student.teacher(dataset)
        if teacher is None:
            return []
        content = to_onnx(teacher, config(teacher.name, teacher.images, ""))
        return [(teacher.name, content, quantize(content, dataset.train))]
    except InputError as error:
        logger.warning(f"only the student is measured ({error})")
        return []


def _record(folder: Path, to: str, entry: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Add an export to the record in the run's folder."""
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
