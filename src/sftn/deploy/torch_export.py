"""`.pt2` files of `torch.export`, which PyTorch runs without this package's code."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sftn.deploy.classifier import Classifier
from sftn.errors import InputError
from sftn.networks.foreign.cut import first_line

RECORD = "config.json"
"""Name of the record among the file's extra files."""


class Outputs(nn.Module):
    """The module that is exported: (B, C, H, W) uint8 -> (B, K) logits and probabilities."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Both outputs."""
        logits = self.classifier(images)
        return logits, logits.softmax(dim=1)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the messages that exporters write for their developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def to_torch_export(classifier: Classifier, about: dict[str, Any]) -> bytes:
    """Convert a network to a `.pt2` file: images (batch, C, H, W) uint8 -> logits and probabilities (batch, K).

    Args:
        classifier: on the CPU.
        about: the record, as `sftn.deploy.preprocessing.config` makes it; stored in the file as `config.json`.

    Raises:
        InputError: the network cannot be exported.
    """
    example = torch.zeros(2, *classifier.images.shape, dtype=torch.uint8)
    file = io.BytesIO()
    try:
        with quiet():
            batch = torch.export.Dim("batch", min=1)
            program = torch.export.export(Outputs(classifier), (example,), dynamic_shapes=({0: batch},))
            torch.export.save(program, file, extra_files={RECORD: json.dumps(about)})
    except Exception as error:  # a foreign network can contain what torch.export does not trace
        raise InputError(f"{classifier.name} cannot be exported by torch.export: {first_line(error)}") from error
    return file.getvalue()


class Program:
    """Runs a `.pt2` file, to check one that was just made."""

    def __init__(self, content: bytes) -> None:
        with quiet():
            self.module = torch.export.load(io.BytesIO(content)).module()

    @torch.no_grad()
    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, C, H, W) -> (B, K)"""
        found: NDArray[np.float32] = self.module(torch.from_numpy(pixels))[0].numpy()
        return found
