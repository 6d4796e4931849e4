"""Which images to use, as given in options; a run records the resolved data set in `sftn.spec.run.Data`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Images:
    """Which images to use, and how to read them."""

    data: str = "digits"
    """digits, cifar10, cifar100, stl10, tiny-imagenet, imagenet, folder:PATH (one folder per class) or hf:NAME."""
    data_dir: Path | None = None
    """Folder of the data set's files."""
    limit: int | None = None
    """Train on this many images only, equally many from each class."""
    classes: int | None = None
    """Use only the first N classes."""
    size: int | None = None
    """Height and width that images from files (and STL-10) are resized to."""
    download: bool = False
    """Download missing files from the data set's official address."""
    stream: bool = False
    """Read images from disk when needed, with random crops in training, even if they would fit into --memory."""
    memory: float = 4.0
    """GiB of decoded images to hold in memory; larger data sets are streamed."""
    damaged: Literal["refuse", "skip"] = "refuse"
    """Refuse or skip images that cannot be decoded; to skip them, streamed images are all read once first."""
    workers: int = 2
    """Number of processes that read streamed images; 0 reads in this process. Changes only the speed."""
