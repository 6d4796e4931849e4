"""Which stores on disk hold a teacher's outputs: named by everything that their bits depend on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

import sftn
from sftn.data.dataset import Dataset
from sftn.runtime.environment import processor
from sftn.spec.run import Run
from sftn.storage.row_store import RowStore
from sftn.storage.store_folder import stores_folder

SWITCHES = ("ONEDNN_", "DNNL_", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY")
"""Beginnings of environment variables that choose how a processor computes."""
Width = tuple[str, int, torch.dtype]
"""One of a teacher's outputs: its name, how many numbers it has, and their type."""


def open_stores(
    run: Run,
    dataset: Dataset,
    identity: Mapping[str, Any],
    fields: Sequence[Width],
    images: int,
    views: int,
    **how: Any,
) -> list[RowStore]:
    """Open the stores of a teacher's outputs, one for each field, so that runs that need different ones share them.

    Args:
        run: one that has the teacher.
        dataset: the images.
        identity: what `identity` returned for the teacher.
        fields: the outputs.
        images: number of images whose outputs are kept, the first ones.
        views: augmented views of an image.
        how: `room` and `create` of `RowStore`.

    Raises:
        InputError: one of them cannot be used; the message says why.
    """
    teacher = " and ".join(one.name if isinstance(one, Run) else one.network for one in run.teachers)
    found = []
    for name, width, dtype in fields:
        about = {"teacher": teacher[:200], "data": dataset.name[:200], "field": name, "dtype": _name(dtype)}
        whole = {**identity, "field": name, "dtype": _name(dtype), "images": images, "views": views}
        found.append(RowStore(stores_folder(), whole, about, images * views, width * dtype.itemsize, **how))
    return found


def identity(run: Run, dataset: Dataset, teacher: nn.Module, products: Mapping[str, str]) -> dict[str, Any]:
    """Everything that the bits of a teacher's outputs for the views of an image depend on, as a JSON object.

    What it misses, as a change to a network's code, is found when stored outputs are compared with new ones
    (`sftn.training.output_cache`).

    Args:
        run: one that is distilled from the teacher.
        dataset: its images.
        teacher: as it is run, folded or not.
        products: its convolutions that are computed as matrix products.
    """
    mean, std = dataset.normalisation
    return {
        "sftn": sftn.__version__,
        "teacher": _digest(teacher),
        "products": dict(products),
        "precision": run.precision,
        "batch": run.schedule.batch,
        "data": dataset.identity,
        "normalisation": [mean.tolist(), std.tolist()],
        "padding": dataset.padding,
        "flip": dataset.flip,
        "torch": torch.__version__,
        "cpu": [processor(), torch.backends.cpu.get_cpu_capability()],
        "threads": torch.get_num_threads(),
        "mkldnn": torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled,
        "matmul": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "switches": {name: value for name, value in sorted(os.environ.items()) if name.startswith(SWITCHES)},
    }


def _digest(network: nn.Module) -> str:
    """A SHA-256 hash of a network's structure, its weights and buffers, and how they lie in memory."""
    digest = hashlib.sha256()
    for name, module in network.named_modules():
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        digest.update(repr((name, kind, module.extra_repr(), sorted(_settings(module)))).encode())
    for tensors in (network.named_parameters(remove_duplicate=False), network.named_buffers(remove_duplicate=False)):
        for name, tensor in tensors:
            digest.update(repr((name, _name(tensor.dtype), tuple(tensor.shape), tensor.stride())).encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _settings(module: nn.Module) -> Iterator[tuple[str, str]]:
    """A module's attributes that are plain values, or tuples of them."""
    for name, value in vars(module).items():
        if all(isinstance(one, bool | int | float | str) for one in (value if isinstance(value, tuple) else (value,))):
            yield name, repr(value)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
