"""What a finished run's network answers on its test images, and what it costs to ask. Trains nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sftn.analysis.calibration import BINS
from sftn.data.dataset import Dataset, Split
from sftn.data.loader import evaluation_batches
from sftn.errors import InputError
from sftn.networks.staged import Shape, StagedNet
from sftn.profiling.layers import layers
from sftn.runs.build import load_data
from sftn.runs.folder import Entry
from sftn.runs.trained import Trained
from sftn.runtime.device import make_fabric
from sftn.spec.run import Data, Run

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Answers:
    """Of a network on N test images, on the CPU."""

    labels: Tensor
    """(N,) int64"""
    predicted: Tensor
    """(N,) int64"""
    confidence: Tensor
    """(N,) float64: the largest probability."""
    loss: Tensor
    """(N,) float64: cross-entropy in nats."""

    @property
    def right(self) -> Tensor:
        """(N,) bool"""
        return self.predicted == self.labels

    @property
    def accuracy(self) -> float:
        """In percent."""
        return 100 * int(self.right.sum()) / len(self.labels)

    def calibration(self, bins: int = BINS) -> Tensor:
        """(3, bins) float64: images, right answers and summed confidence by bins of equal width, (lower, upper]."""
        where = ((self.confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
        right = self.right.double()
        rows = torch.stack([torch.ones_like(right), right, self.confidence])
        return torch.zeros(3, bins, dtype=torch.float64).index_add_(1, where, rows)

    @property
    def ece(self) -> float:
        """Expected calibration error in percent, as `sftn.analysis.calibration` defines it."""
        _, right, confidence = self.calibration()
        return 100 * float((right - confidence).abs().sum()) / len(self.labels)

    def confusion(self, classes: int) -> Tensor:
        """(K, K) int64: images by true class and answer."""
        return torch.bincount(classes * self.labels + self.predicted, minlength=classes**2).view(classes, classes)


@dataclass(frozen=True)
class Looked:
    """A run and what its network answered; what could not be had is None, and a note says why."""

    entry: Entry
    run: Run
    record: dict[str, Any]
    dataset: Dataset | None = None
    answers: Answers | None = None
    teacher: Answers | None = None
    networks: dict[str, Measured] = field(default_factory=dict)
    """Its own and its teacher's, by identity."""
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """In tables and over columns."""
        return f"{self.run.name}, seed {self.run.seed}"


@dataclass(frozen=True)
class Measured:
    """A network by what it costs."""

    name: str
    accuracy: float | None
    """Of the last epoch, in percent; None if nothing says it."""
    network: StagedNet
    image: Shape
    file: int
    """Bytes of its weights."""

    @property
    def parameters(self) -> int:
        """How many."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    @property
    def multiply_adds(self) -> int:
        """Of one image."""
        return sum(layer.multiply_adds for layer in layers(self.network, self.image))


class Images:
    """The data sets that runs were trained on, each loaded once."""

    def __init__(self, data_dir: Path | None) -> None:
        self.data_dir = data_dir
        self._seen: dict[Data, Dataset | str] = {}

    def of(self, data: Data) -> Dataset | str:
        """The images of a run, or why they are not there."""
        if data not in self._seen:
            try:
                found = load_data(data, self.data_dir)
            except InputError as error:
                self._seen[data] = f"the images of {data.name} are not there: {error}"
            else:
                differs = f"{data.name} holds other images now than when it was trained"
                self._seen[data] = found if found.identity == data.fingerprint else differs
        return self._seen[data]


def looked(entry: Entry, images: Images, device: str = "auto") -> Looked:
    """Evaluate a finished run and its teacher, as far as their images and weights are there."""
    if entry.run is None or entry.result is None:
        raise InputError(f"{entry.folder} is not done: finish it first, see sftn runs list")
    run, record, notes = entry.run, entry.result, []
    own = Trained(run, entry.folder.weights, run)
    found = images.of(run.data)
    if isinstance(found, str):
        notes.append(f"{run.name}: {found}")
    dataset = None if isinstance(found, str) else found
    networks: dict[str, Measured] = {}
    answers: list[Answers | None] = [None, None]
    subjects = [own] if run.teacher is None else [own, own.teacher()]
    for place, subject in enumerate(subjects):
        try:
            network = _network(subject, dataset, record)
            measured = Measured(
                name=subject.name,
                accuracy=(subject.result() or {}).get("accuracy"),
                network=network,
                image=dataset.image if dataset is not None else tuple(record["images"]["shape"]),
                file=subject.weights.stat().st_size,
            )
            if dataset is not None:
                fabric = make_fabric(device, run.precision)
                answers[place] = ask(network.to(fabric.device), dataset.test, dataset.normalisation, fabric)
                network.cpu()
            networks[subject.identity] = measured
        except InputError as error:
            notes.append(f"{subject.name}: {error}")
    seen, teacher = answers
    if seen is not None and abs(seen.accuracy - record["accuracy"]) > 1e-6:
        notes.append(f"{run.name}: recorded {record['accuracy']:.2f} %, and {seen.accuracy:.2f} % on this machine")
    return Looked(entry, run, record, dataset, seen, teacher, networks, tuple(notes))


def _network(subject: Trained, dataset: Dataset | None, record: dict[str, Any]) -> StagedNet:
    if dataset is not None:
        return subject.network(dataset)
    if "images" not in record:
        raise InputError("without its images nothing says what it is to be given: name their folder with --data-dir")
    _, height, width = record["images"]["shape"]
    return subject.network_alone((height, width))


@torch.no_grad()
def ask(
    network: StagedNet, split: Split, normalisation: tuple[Tensor, Tensor], fabric: Fabric, *, batch: int = 250
) -> Answers:
    """The answers of a network, in eval mode, to a split of images that are not augmented."""
    network.eval()
    rows: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for images, labels, _ in evaluation_batches(split, batch=batch, normalisation=normalisation, device=fabric.device):
        with fabric.autocast():
            logits = network(images)
        log_p = F.log_softmax(logits.float(), dim=1)
        # As `sftn.training.evaluate` finds it: half-precision logits have ties, which `max` breaks in another way.
        highest, answers = (best[:, 0] for best in log_p.topk(min(5, log_p.shape[1]), dim=1))
        loss = -log_p.gather(1, labels[:, None]).squeeze(1)
        rows.append((labels, answers, highest.double().exp(), loss.double()))
    labels, predicted, confidence, loss = (torch.cat(column).cpu() for column in zip(*rows))
    return Answers(labels, predicted, confidence, loss)


@torch.no_grad()
def latencies(networks: Sequence[Measured], rounds: int = 40, seconds: float = 8.0) -> list[float]:
    """Milliseconds that each network takes for one image on this CPU: the median of rounds in which they take turns.

    Args:
        networks: on the CPU, float32.
        rounds: how many, of which the first three are not counted.
        seconds: no new round begins after so long, but five are always done.
    """
    inputs = [torch.zeros(1, *one.image) for one in networks]
    times: list[list[float]] = [[] for _ in networks]
    began = time.perf_counter()
    for count in range(rounds):
        if count >= 8 and time.perf_counter() - began > seconds:
            break
        for one, image, own in zip(networks, inputs, times):
            start = time.perf_counter()
            one.network.eval()(image)
            own.append(1000 * (time.perf_counter() - start))
    return [statistics.median(own[3:]) for own in times]
