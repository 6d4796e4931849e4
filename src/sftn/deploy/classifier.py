"""A network together with its normalisation and labels: pixels in, logits out."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from sftn.deploy.preprocessing import Images
from sftn.errors import InputError
from sftn.networks.staged import StagedNet
from sftn.networks.weights import network_from_file, read_metadata, read_state, save_weights


class Classifier(nn.Module):
    """A classifier of RGB pixels: (B, C, H, W) in 0..255, uint8 or floating point -> (B, K) logits.

    Args:
        network: trained; shared, not copied.
        images: the images that it was trained on.
        name: its name for `sftn.networks.build`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: StagedNet, images: Images, name: str) -> None:
        super().__init__()
        self.network = network
        self.images = images
        self.name = name
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(images, name)).view(1, -1, 1, 1), persistent=False)
        self.eval()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.images.classes

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits of pixels.

        Raises:
            InputError: the images do not have the shape that the network was trained on.
        """
        if images.dim() != 4 or tuple(images.shape[1:]) != self.images.shape:
            given, wanted = ("×".join(map(str, shape)) for shape in (images.shape, ("B", *self.images.shape)))
            raise InputError(f"{self.name} takes images of {wanted}, not {given}: resize and crop them first")
        logits: Tensor = self.network((images.to(self.mean.dtype) - self.mean) / self.std)
        return logits

    def save(self, path: Path, run: str = "") -> None:
        """Write a self-contained file of weights, which `load` and `sftn evaluate` read.

        Args:
            path: ends in .safetensors.
            run: id of the run that trained them.

        Raises:
            InputError: the file cannot be written.
        """
        images = self.images
        mean, std = (json.dumps(list(values)) for values in (images.mean, images.std))
        metadata = {"network": self.name, "classes": str(len(images.classes)), "run": run}
        save_weights(self.network, path, {**metadata, "mean": mean, "std": std, "images": json.dumps(images.record())})

    @staticmethod
    def load(path: Path) -> Classifier:
        """Load a file that `save` wrote.

        Raises:
            InputError: the file is missing, damaged, or does not record what images it takes.
        """
        said = read_metadata(path)
        if "images" not in said or "network" not in said:
            raise InputError(
                f"{path} does not record what images it takes: give the run's folder, or a file that sftn export wrote"
            )
        try:
            record = json.loads(said["images"])
        except (ValueError, RecursionError):
            record = None
        images = Images.read(record, str(path))
        return Classifier.of(said["network"], images, path)

    @staticmethod
    def of(name: str, images: Images, path: Path) -> Classifier:
        """Build a network for these images and load a file's weights.

        Raises:
            InputError: the file is missing, damaged, or belongs to another network.
        """
        classes, state = len(images.classes), read_state(path)
        # The number of classes is taken from the file only if a matrix of that size is in it.
        if not any(tensor.dim() > 1 and len(tensor) == classes and tensor.numel() for tensor in state.values()):
            raise InputError(f"{path} has no classifier of {classes} classes: give the weights that were recorded")
        return Classifier(network_from_file(name, path, classes, images.shape), images, name)
