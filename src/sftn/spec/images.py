"""Which images, as a person asks for them; a run records what came of it in `sftn.spec.run.Data`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Images:
    """Which images."""

    data: str = "digits"
    """digits, cifar10, cifar100, stl10, tiny-imagenet, imagenet, folder:PATH (one folder per class) or hf:NAME."""
    data_dir: Path | None = None
    """Where the files of the data set are."""
    limit: int | None = None
    """Train on this many images only, the same number of each class."""
    classes: int | None = None
    """Use the first N classes only."""
    size: int | None = None
    """Height and width that images from files (and STL-10) are resized to."""
    download: bool = False
    """Fetch missing files from the data set's official address."""
    stream: bool = False
    """Read images when they are needed, with random crops in training, even if --memory would hold them."""
    memory: float = 4.0
    """GiB of decoded images to keep in memory; larger data sets are streamed."""
    damaged: Literal["refuse", "skip"] = "refuse"
    """Refuse images that cannot be decoded, or leave them out; streamed images are then all read once first."""
    workers: int = 2
    """Processes that read streamed images; 0 reads in this process. Changes only the speed."""
