"""ONNX files, written by PyTorch's exporter with the labels inside, and run by onnxruntime."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sftn.deploy.classifier import Classifier
from sftn.deploy.preprocessing import Images
from sftn.deploy.torch_export import Outputs, quiet
from sftn.errors import InputError
from sftn.networks.foreign.cut import first_line

OPSET = 18
"""Opset that PyTorch's exporter writes without conversion; onnxruntime reads it from 1.14 on."""
INPUT, LOGITS, PROBABILITIES = "images", "logits", "probabilities"
_METADATA = "sftn"
_ELSEWHERE = re.compile(rb"[\x08\x00]location")
"""The key under which a tensor names an external file or memory address for its numbers: its length, 8, and the text.
A length may be encoded in more bytes than necessary, and then ends in a zero byte."""


def package(name: str) -> Any:
    """Import onnx, onnxruntime or one of their modules.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = (error.name or name).partition(".")[0]
        raise InputError(f"{missing} is not installed: pip install 'sftn[onnx]'") from error


def to_onnx(classifier: Classifier, about: dict[str, Any]) -> bytes:
    """Convert a network to an ONNX file: images (batch, C, H, W) uint8 -> logits and probabilities (batch, K) float32.

    The weights are in the file itself. Its metadata contain the record under `sftn` and the names of the classes under
    `labels`, both as JSON.

    Args:
        classifier: on the CPU.
        about: the record, as `sftn.deploy.preprocessing.config` makes it.

    Raises:
        InputError: onnx or onnxscript is not installed, or the network cannot be exported.
    """
    onnx = package("onnx")
    package("onnxscript")
    example = torch.zeros(2, *classifier.images.shape, dtype=torch.uint8)
    try:
        with quiet():
            program = torch.onnx.export(
                Outputs(classifier),
                (example,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[LOGITS, PROBABILITIES],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                opset_version=OPSET,
                verbose=False,
            )
        assert program is not None
        model = program.model_proto
        onnx.helper.set_model_props(model, {_METADATA: json.dumps(about), "labels": json.dumps(classifier.classes)})
        onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString()
    except Exception as error:  # a foreign network can contain what no exporter supports
        raise InputError(f"{classifier.name} cannot be exported to ONNX: {first_line(error)}") from error
    return content


class Session:
    """An ONNX file in onnxruntime, on the CPU.

    The file must be self-contained: one that refers to other files is refused before onnxruntime sees it.

    Args:
        content: the file, or its content.
        threads: threads within an operation; None for onnxruntime's default.

    Raises:
        InputError: onnxruntime is not installed, or it is not a complete ONNX file of ours.
    """

    def __init__(self, content: Path | bytes, threads: int | None = None) -> None:
        runtime = package("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # log fatal errors only; others are raised
        options.add_session_config_entry("session.load_model_format", "ONNX")  # its own format is not checked
        if threads is not None:
            options.intra_op_num_threads = threads
        where = str(content) if isinstance(content, Path) else "the ONNX file"
        if isinstance(content, Path):
            content = _read(content)
        if _ELSEWHERE.search(content):
            raise InputError(f"{where} refers to other files, which sftn export never writes: export it again")
        try:
            cpu = ["CPUExecutionProvider"]
            self.session = runtime.InferenceSession(content, options, providers=cpu, enable_fallback=0)
            record = self.session.get_modelmeta().custom_metadata_map.get(_METADATA)
            ends = [*self.session.get_inputs(), *self.session.get_outputs()]
            names, shapes = [end.name for end in ends], [tuple(end.shape[1:]) for end in ends]
        except Exception as error:  # damaged files raise many kinds of errors
            raise InputError(f"{where} is not a whole ONNX file ({first_line(error)}): export it again") from error
        if record is None:
            raise InputError(f"{where} does not name its classes: give a file that sftn export wrote")
        try:
            self.about = json.loads(record)
            given = self.about["images"]
        except (ValueError, KeyError, TypeError, RecursionError):
            given = None
        self.images, self.where = Images.read(given, where), where
        classes = (len(self.images.classes),)
        if names != [INPUT, LOGITS, PROBABILITIES] or shapes != [self.images.shape, classes, classes]:
            raise InputError(f"{where} does not fit its metadata: export it again")

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, C, H, W) -> (B, K)"""
        return self._run(LOGITS, pixels)

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, C, H, W) -> (B, K)"""
        return self._run(PROBABILITIES, pixels)

    def _run(self, end: str, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            found: NDArray[np.float32] = self.session.run([end], {INPUT: pixels})[0]
        except Exception as error:  # its parts may not fit together
            raise InputError(f"{self.where} cannot be run ({first_line(error)}): export it again") from error
        if found.shape != (len(pixels), len(self.images.classes)):
            raise InputError(f"{self.where} gives {'×'.join(map(str, found.shape))} numbers: export it again")
        return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; make it readable") from error
