"""The commands that hand a trained network on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro


def export(
    run: Annotated[Path, tyro.conf.Positional],
    to: str = "onnx",
    out: Path | None = None,
    check_images: int = 100,
    quantize: bool = False,
    license: str | None = None,
    data: str | None = None,
    data_dir: Path | None = None,
) -> None:
    """Write a finished run's network for others: normalisation and labels inside, checked, with a model card.

    Args:
        run: the folder of a run.
        to: onnx, safetensors (which sftn and the Hugging Face Hub read) or torch-export.
        out: where the files go; export in the run's folder if not given.
        check_images: test images on which the file must answer as PyTorch does.
        quantize: for onnx: also int8, with accuracy, size and time of student and teacher.
        license: of the weights, for the card, e.g. mit; not stated if not given.
        data: other images than the run's own, to check and measure with.
        data_dir: where the files of the data set are.
    """
    from sftn.cli.commands import deploy

    deploy.export(run, to, out, check_images, quantize, license, data, data_dir)


def predict(
    what: Annotated[Path, tyro.conf.Positional],
    images: Annotated[tuple[Path, ...], tyro.conf.Positional],
    top: int = 5,
    data: str | None = None,
    data_dir: Path | None = None,
) -> None:
    """The class of image files. One that cannot be read is named, the others are answered; then the exit code is 2.

    Args:
        what: the folder of a run, or a .onnx or .safetensors file that sftn export wrote.
        images: files, or folders of them.
        top: so many classes of each image.
        data: for a run of an older version: the images that it was trained on.
        data_dir: where the files of the data set are.
    """
    from sftn.cli.commands import deploy

    deploy.predict(what, images, top, data, data_dir)
