"""The Python API: compare, train a teacher and distil, with networks and images as objects or by name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn
from torch.utils.data import Dataset as TorchDataset

from sftn.data.dataset import Dataset
from sftn.data.sources.torch_dataset import from_torch
from sftn.errors import InputError
from sftn.experiments import compare as comparisons
from sftn.experiments.comparison import Comparison
from sftn.networks import NETWORKS
from sftn.networks.foreign.automatic import cut
from sftn.networks.staged import StagedNet
from sftn.networks.weights import save_weights
from sftn.runs import requests
from sftn.runs import train as training
from sftn.runs.train import TrainedNetwork
from sftn.spec import jobs

Network: TypeAlias = str | nn.Module | Callable[[], nn.Module]
"""A name (`resnet20`, `timm:resnet18`), a module, or a function that builds one."""
Teacher: TypeAlias = TrainedNetwork | nn.Module | str | Path
"""What `train_teacher` returned, a trained module, the folder of a run, or a weights file."""
Images: TypeAlias = str | Path | Dataset | tuple[TorchDataset[Any], TorchDataset[Any]]
"""A name (`cifar100`), a folder, an sftn data set, or a pair of PyTorch data sets (training, test)."""


def compare(
    teacher: Network = "resnet20",
    student: Network | Sequence[str] = "resnet8",
    data: Images = "digits",
    *,
    methods: str | Sequence[str] = "kd",
    seeds: int | Sequence[int] = 3,
    out: str | Path = "runs",
    **options: Any,
) -> Comparison:
    """Train a student alone, with a standard teacher and with one trained for it, over seeds; report a paired test.

    Finished runs in `out` are not trained again, so an interrupted call resumes. Progress is logged
    (`logging.basicConfig(level="INFO")` shows it).

    Args:
        teacher: the large network. A module starts from its current weights in every seed; a function that builds it
            gives new ones.
        student: the small network, or several by name; the teacher is then trained for all of them.
        data: the images.
        methods: distillation methods, e.g. `["kd", "crd"]`, or sums such as `"crd+kd"`.
        seeds: number of seeds, or the seeds themselves.
        out: the folder of all runs.
        options: any other option of `sftn compare`: `epochs=30`, `batch=128`, `branch_kl=0.3`, `device="cuda"`, …

    Returns:
        A table that prints itself, with `accuracies`, `verdict()` and the `folder` of its files.

    Raises:
        InputError: the input is wrong; the message is one line with the remedy.

    Example:
        >>> import sftn
        >>> print(sftn.compare("resnet20", "resnet8", "digits", epochs=2, seeds=1))  # doctest: +SKIP
    """
    given = options | {"data": data, "methods": methods, "seeds": seeds, "out": out}
    dataset, given = _images(given, jobs.Compare)
    names = [_named(one, dataset) for one in _several(student)]
    job = jobs.asked(jobs.Compare, given | {"teacher": _named(teacher, dataset), "student": names})
    return comparisons.compare(job, dataset)


def train_teacher(
    teacher: Network,
    student: Network | Sequence[str] | None = None,
    data: Images = "digits",
    *,
    seed: int = 0,
    out: str | Path = "runs",
    **options: Any,
) -> TrainedNetwork:
    """Train a student-friendly teacher; without a student, a standard one.

    Args:
        teacher: the network to train; a module starts from its current weights and is not changed.
        student: the network that it will teach, or several by name.
        data: the images.
        seed: random seed of the initial weights and the batches.
        out: the folder of all runs; finished runs are not trained again.
        options: any other option of `sftn train-teacher`: `epochs=30`, `branch_kl=0.3`, …

    Returns:
        The trained network with its accuracy and folder.

    Raises:
        InputError: the input is wrong; the message is one line with the remedy.

    Example:
        >>> import sftn
        >>> teacher = sftn.train_teacher("resnet20", "resnet8", "digits", epochs=2)  # doctest: +SKIP
        >>> teacher.network, teacher.accuracy  # doctest: +SKIP
    """
    given = options | {"data": data, "seed": seed, "out": out}
    dataset, given = _images(given, jobs.TrainTeacher)
    names = [] if student is None else [_named(one, dataset) for one in _several(student)]
    given |= {"teacher": _named(teacher, dataset), "student": names, "standard": not names}
    return training.train_teacher(jobs.asked(jobs.TrainTeacher, given), dataset)


def distill(
    teacher: Teacher | Sequence[Teacher] | None,
    student: Network,
    data: Images = "digits",
    *,
    method: str = "kd",
    seed: int = 0,
    out: str | Path = "runs",
    **options: Any,
) -> TrainedNetwork:
    """Distil a trained teacher, or several together, into a student.

    Args:
        teacher: the result of `train_teacher`, a trained module, the folder of a run, or a weights file (which may need
            `teacher_network="resnet20"`); or a list of several, of which methods on features learn from the first, and
            others from all (`ensemble="mean"` or `"ca"`). None with `generations`, for the same network alone.
        student: the network to train; a module starts from its current weights and is not changed.
        data: the images.
        method: `"kd"`, `"crd"`, … or a sum such as `"crd+kd"`.
        seed: random seed of the initial weights and the batches.
        out: the folder of all runs; finished runs are not trained again.
        options: any other option of `sftn distill`: `epochs=30`, `temperature=2.0`, `generations=3`, …

    Returns:
        The trained network with its accuracy and folder.

    Raises:
        InputError: the input is wrong; the message is one line with the remedy.

    Example:
        >>> import sftn
        >>> teacher = sftn.train_teacher("resnet20", "resnet8", "digits", epochs=2)  # doctest: +SKIP
        >>> student = sftn.distill(teacher, "resnet8", "digits", epochs=2)  # doctest: +SKIP
    """
    given = options | {"data": data, "method": method, "seed": seed, "out": out}
    dataset, given = _images(given, jobs.Distill)
    several = teacher if isinstance(teacher, list | tuple) else [] if teacher is None else [teacher]
    given |= {"student": _named(student, dataset), "teacher": [_teacher(one, dataset, Path(out)) for one in several]}
    return training.distill(jobs.asked(jobs.Distill, given), dataset)


def _teacher(teacher: Any, dataset: Dataset, out: Path) -> str:
    """The folder or file of a teacher; a module's weights are written."""
    if isinstance(teacher, TrainedNetwork):
        return str(teacher.folder)
    if not isinstance(teacher, nn.Module):
        return str(teacher)
    name = _named(teacher, dataset)
    folder = out / "teachers"
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(cut(teacher, dataset.image), folder / f"{name}.safetensors", {"network": name})
    return str(folder / f"{name}.safetensors")


def _several(student: Network | Sequence[str]) -> Sequence[Network]:
    return student if isinstance(student, list | tuple) else [student]  # type: ignore[list-item]


def _images(options: Mapping[str, Any], kind: type[Any]) -> tuple[Dataset, dict[str, Any]]:
    """Load the images of a call; returns them and the options with the data set's name in their place."""
    given, data = dict(options), options["data"]
    if isinstance(data, tuple) and len(data) == 2:
        data = from_torch(*data)
    if isinstance(data, Dataset):
        return data, given | {"data": f"own:{data.name}"}
    if not isinstance(data, str | Path):
        raise InputError("data must be a name, a folder, an sftn data set, or a pair (training set, test set)")
    if isinstance(data, Path) or (":" not in data and Path(data).is_dir()):
        data = f"folder:{data}"
    names = jobs.option_names(jobs.Images)
    asked = jobs.asked(jobs.Images, {name: value for name, value in given.items() if name in names} | {"data": data})
    return requests.load_images(asked), given | {"data": data}


def _named(network: Network, dataset: Dataset) -> str:
    """The name of a network in its runs: its own, or a new one that is registered for a module."""
    if isinstance(network, str):
        return network
    if isinstance(network, nn.Module):
        module = network

        def build(classes: int, channels: int = 3) -> StagedNet:
            return _checked(deepcopy(module), dataset)
    elif callable(network):
        make = network
        module = make()

        def build(classes: int, channels: int = 3) -> StagedNet:
            return _checked(make(), dataset)
    else:
        raise InputError(
            f"{type(network).__name__} is not a network: give a name, a module, or a function that builds one"
        )
    digest = hashlib.sha256(repr(module).encode())
    if isinstance(network, nn.Module):
        for key, value in network.state_dict().items():
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    name = f"{type(module).__name__.lower()}-{digest.hexdigest()[:8]}"
    _checked(deepcopy(module), dataset)
    kinds = sorted({type(part) for part in module.modules()}, key=lambda kind: f"{kind.__module__}.{kind.__qualname__}")
    build.built_from = kinds if network is module else [network, *kinds]  # type: ignore[attr-defined]
    NETWORKS[name] = build
    return name


def _checked(module: nn.Module, dataset: Dataset) -> StagedNet:
    network = cut(module, dataset.image)
    if network.shapes(dataset.image).logits != len(dataset.classes):
        raise InputError(
            f"{type(module).__name__} has {network.shapes(dataset.image).logits} classes and {dataset.name} has "
            f"{len(dataset.classes)}: give it the classes of the data"
        )
    return network
