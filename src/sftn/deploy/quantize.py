"""Quantisation to int8 by onnxruntime's static quantisation, and the measurement of its cost and gain."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sftn.data.dataset import Split
from sftn.data.file_split import Files
from sftn.deploy.onnx_file import INPUT, Session, package
from sftn.deploy.parity import some
from sftn.deploy.torch_export import quiet
from sftn.errors import InputError
from sftn.networks.foreign.cut import first_line

CALIBRATION = 256
"""Number of training images used to find the ranges of activations."""
SIZES = (1, 64)
"""Batch sizes that are timed."""
ROUNDS, SECONDS = {1: 50, 64: 10}, 20.0
"""Timed repetitions of each batch size, and the limit in seconds over all files; at least three are timed."""
_BATCH = 32


def quantize(content: bytes, calibration: Split | Files) -> bytes:
    """Quantise an ONNX file to 8 bits: QDQ, int8 weights per channel, uint8 activations with min/max ranges.

    Activations are uint8, which onnxruntime multiplies fastest on x86; signed ones, its default, were hardly faster
    than float32 here. A CPU without VNNI may lose accuracy by overflow, which `reduce_range`, not used here, prevents.

    Args:
        content: the float32 file.
        calibration: training images; `CALIBRATION` of them are used.

    Raises:
        InputError: onnxruntime is not installed, or it cannot quantise this network.
    """
    library = package("onnxruntime.quantization")
    shapes = package("onnxruntime.quantization.shape_inference")

    class Reader(library.CalibrationDataReader):  # type: ignore[name-defined]
        def __init__(self) -> None:
            self.batches = _batches(some(calibration, CALIBRATION), _BATCH)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch}

    with tempfile.TemporaryDirectory() as name, quiet():
        given, prepared, made = (Path(name) / f"{part}.onnx" for part in ("given", "prepared", "made"))
        given.write_bytes(content)
        try:
            shapes.quant_pre_process(given, prepared)
            library.quantize_static(
                prepared,
                made,
                Reader(),
                quant_format=library.QuantFormat.QDQ,
                per_channel=True,
                activation_type=library.QuantType.QUInt8,
                weight_type=library.QuantType.QInt8,
                calibrate_method=library.CalibrationMethod.MinMax,
            )
        except Exception as error:  # a foreign network can contain what it does not support
            raise InputError(f"onnxruntime cannot quantise this network: {first_line(error)}") from error
        return made.read_bytes()


@dataclass(frozen=True)
class Measured:
    """Size, accuracy and speed of a file."""

    role: str
    """"student" or "teacher"; "network" if there is no teacher."""
    network: str
    numbers: str
    """"float32" or "int8"."""
    bytes: int
    accuracy: float
    """Accuracy on the test split, in percent."""
    seconds: dict[int, float]
    """Median seconds per batch, by batch size."""

    def record(self) -> dict[str, Any]:
        """The measurement as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class File:
    """An ONNX file to measure."""

    role: str
    network: str
    numbers: str
    content: bytes


def measure(files: Sequence[File], test: Split | Files, threads: int) -> list[Measured]:
    """Measure accuracy on a test split, and the time per batch on this CPU.

    The files take turns, so that other work on the machine slows all of them equally.

    Args:
        files: ONNX files of networks with the same input.
        test: the test images.
        threads: threads of onnxruntime.
    """
    sessions = [Session(file.content, threads) for file in files]
    accuracies = [accuracy(session, test) for session in sessions]
    times: list[dict[int, float]] = [{} for _ in files]
    for size in SIZES:
        images = some(test, size)
        images = np.concatenate([images] * -(-size // len(images)))[:size]
        for place, seconds in enumerate(_timed(sessions, images)):
            times[place][size] = seconds
    return [
        Measured(file.role, file.network, file.numbers, len(file.content), accuracies[place], times[place])
        for place, file in enumerate(files)
    ]


def accuracy(session: Session, split: Split | Files) -> float:
    """In percent."""
    right = 0
    for which in torch.arange(len(split)).split(SIZES[-1]):
        part = split.pick(which).sample(len(which))
        found = session.logits(part.images.numpy()).argmax(axis=1)
        right += int((found == part.labels.numpy()).sum())
    return 100 * right / len(split)


def _timed(sessions: Sequence[Session], images: NDArray[np.uint8]) -> list[float]:
    """Median seconds per batch of each session."""
    for session in sessions:
        session.logits(images)
    taken: list[list[float]] = [[] for _ in sessions]
    begun = time.perf_counter()
    for number in range(ROUNDS[len(images)]):
        if number >= 3 and time.perf_counter() - begun > SECONDS:
            break
        for session, own in zip(sessions, taken):
            start = time.perf_counter()
            session.logits(images)
            own.append(time.perf_counter() - start)
    return [statistics.median(own) for own in taken]


def _batches(pixels: NDArray[np.uint8], size: int) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(pixels), size):
        yield pixels[start : start + size]
