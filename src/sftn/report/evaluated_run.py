"""Evaluation of a finished run: predictions on its test images, and the network's size and latency."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sftn.data.dataset import Dataset
from sftn.errors import InputError
from sftn.networks.staged import Shape, StagedNet
from sftn.profiling.layers import layers
from sftn.runs.build import load_data
from sftn.runs.caveats import Record, of_student
from sftn.runs.folder import Entry
from sftn.runs.trained import Trained
from sftn.runtime.device import make_fabric
from sftn.spec.run import Data, Run, Weights
from sftn.training.evaluate import Predictions, predictions

FAR = 1.3
"""How many times the lower quartile of a latency the upper one may be before it counts as unsteady."""


@dataclass(frozen=True)
class EvaluatedRun:
    """A run with its network's predictions; unavailable parts are None, and a note gives the reason."""

    entry: Entry
    run: Run
    record: dict[str, Any]
    """The content of `result.json`."""
    dataset: Dataset | None = None
    predictions: Predictions | None = None
    teacher: Predictions | None = None
    """Predictions of the teacher."""
    networks: dict[str, NetworkCost] = field(default_factory=dict)
    """The run's network and its teacher, by identity."""
    notes: tuple[str, ...] = ()
    label: str = ""
    """A name that tells it apart from the other runs of its page; empty for the run's own."""

    @cached_property
    def judged(self) -> Record:
        """What the run says about its answers by class; of an older run, what its predictions say."""
        if self.predictions is None or self.dataset is None:
            return Record.of(self.record)
        return Record.of({"by_class": self.predictions.by_class(len(self.dataset.classes))} | self.record)

    @property
    def warning(self) -> str:
        """What to know before believing the accuracy, as one sentence; empty if there is nothing."""
        teacher = self.run.teacher
        found = self.record.get("warnings")
        if found is None or isinstance(teacher, Weights):
            found = self.judged.caveats()
            if teacher is not None and self.teacher is not None:
                name = teacher.name if isinstance(teacher, Run) else teacher.network
                found += of_student(self.record, name, {"accuracy": self.teacher.accuracy})
        return f"{self.title} {'; it '.join(found)}." if found else ""

    @property
    def title(self) -> str:
        """Title for tables and columns."""
        return f"{self.label or self.run.name}, seed {self.run.seed}"


@dataclass(frozen=True)
class NetworkCost:
    """A network with its accuracy and what it costs: size and multiply-adds."""

    name: str
    accuracy: float | None
    """Accuracy of the last epoch in percent; None if it is not recorded."""
    network: StagedNet
    image: Shape
    file: int
    """Size of the weights file in bytes."""

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for one image."""
        return sum(layer.multiply_adds for layer in layers(self.network, self.image))


class Latency(NamedTuple):
    """Times of one network in ms: the quartiles over several rounds."""

    low: float
    median: float
    high: float

    @property
    def steady(self) -> bool:
        """Whether the quartiles are near each other; if not, the machine had something else to do."""
        return self.high <= FAR * self.low


class Datasets:
    """The data sets that runs were trained on, each loaded once."""

    def __init__(self, data_dir: Path | None) -> None:
        self.data_dir = data_dir
        self._loaded: dict[Data, Dataset | str] = {}

    def of(self, data: Data) -> Dataset | str:
        """The images of a run, or the reason why they are unavailable."""
        if data not in self._loaded:
            try:
                found = load_data(data, self.data_dir)
            except InputError as error:
                self._loaded[data] = f"the images of {data.name} are missing: {error}"
            else:
                other = f"{data.name} has changed: it no longer holds the images that the run was trained on"
                self._loaded[data] = found if found.matches(data.fingerprint) else other
        return self._loaded[data]


def evaluate_run(
    entry: Entry, datasets: Datasets, device: str = "auto", labels: Mapping[str, str] | None = None
) -> EvaluatedRun:
    """Evaluate a finished run and its teacher, as far as their images and weights are available.

    Args:
        entry: the run.
        datasets: images, loaded once for all runs.
        device: auto, cpu, cuda or mps.
        labels: names of runs by id that tell them apart; by default a run's own.

    Raises:
        InputError: the run is not finished.
    """
    if entry.run is None or entry.result is None:
        raise InputError(f"{entry.folder} is not done: finish it first, see sftn runs list")
    run, record, notes = entry.run, entry.result, []
    student = Trained(run, entry.folder.weights, run)
    found = datasets.of(run.data)
    if isinstance(found, str):
        notes.append(f"{run.name}: {found}")
    if run.further:
        others = ", ".join(one.name if isinstance(one, Run) else one.network for one in run.further)
        notes.append(f"{run.name}: compared with the first of its teachers; it learned from {others} as well")
    dataset = None if isinstance(found, str) else found
    networks: dict[str, NetworkCost] = {}
    predicted: list[Predictions | None] = [None, None]
    subjects = [student] if run.teacher is None else [student, student.teacher()]
    for place, subject in enumerate(subjects):
        try:
            network = _network(subject, dataset, record)
            cost = NetworkCost(
                name=_name(subject, labels or {}),
                accuracy=(subject.result() or {}).get("accuracy"),
                network=network,
                image=dataset.image if dataset is not None else tuple(record["images"]["shape"]),
                file=subject.weights.stat().st_size,
            )
            if dataset is not None:
                fabric = make_fabric(device, run.precision)
                network.to(fabric.device)
                answers = predictions(network, dataset.test, dataset.normalisation, fabric)
                predicted[place] = answers
                network.cpu()
                if cost.accuracy is None:
                    cost = replace(cost, accuracy=answers.accuracy)
            networks[subject.identity] = cost
        except InputError as error:
            notes.append(f"{subject.name}: {error}")
    ours, teachers = predicted
    if ours is not None and abs(ours.accuracy - record["accuracy"]) > 1e-6:
        notes.append(f"{run.name}: recorded {record['accuracy']:.2f} %, and {ours.accuracy:.2f} % on this machine")
    return EvaluatedRun(
        entry, run, record, dataset, ours, teachers, networks, tuple(notes), (labels or {}).get(run.id, "")
    )


def _name(subject: Trained, labels: Mapping[str, str]) -> str:
    label = labels.get(subject.identity)
    return subject.name if label is None or subject.run is None else f"{label} (seed {subject.run.seed})"


def _network(subject: Trained, dataset: Dataset | None, record: dict[str, Any]) -> StagedNet:
    if dataset is not None:
        return subject.network(dataset)
    if "images" not in record:
        raise InputError("the shape of its images is unknown without the images: give their folder with --data-dir")
    _, height, width = record["images"]["shape"]
    return subject.network_alone((height, width))


@torch.no_grad()
def latencies(networks: Sequence[NetworkCost], rounds: int = 40, seconds: float = 8.0) -> list[Latency]:
    """Latency of each network for one image on this CPU, over rounds in which they take turns.

    Args:
        networks: on the CPU, float32.
        rounds: number of rounds, of which the first three are not counted.
        seconds: time after which no new round begins; five counted rounds are always made.
    """
    inputs = [torch.zeros(1, *one.image) for one in networks]
    times: list[list[float]] = [[] for _ in networks]
    began = time.perf_counter()
    for count in range(rounds):
        if count >= 8 and time.perf_counter() - began > seconds:
            break
        for one, image, spent in zip(networks, inputs, times):
            start = time.perf_counter()
            one.network.eval()(image)
            spent.append(1000 * (time.perf_counter() - start))
    return [Latency(*statistics.quantiles(spent[3:], n=4, method="inclusive")) for spent in times]
