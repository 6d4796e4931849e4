"""Which passes of which convolutions are faster as matrix products on this machine: measured once, then looked up."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sftn.errors import InputError
from sftn.networks.fast import small_maps, winograd
from sftn.runtime.collectives import world
from sftn.runtime.environment import processor
from sftn.storage.json_files import read_json, write_json

logger = logging.getLogger(__name__)

GAIN = 0.95
"""A product must take less than this part of the convolution's time: what is as fast stays as it was."""
REPEATS = 4
"""Of which the fastest counts: a machine that others use makes the others slower."""
CONVOLUTION = "convolution"
FORMAT = 1


class Layer(NamedTuple):
    """A convolution and what it is given."""

    dtype: str
    batch: int
    channels: int
    height: int
    width: int
    kernel: int
    stride: int
    padding: int
    out: int

    @classmethod
    def of(cls, x: Tensor, weight: Tensor, stride: int, padding: int, dtype: torch.dtype) -> Layer:
        """The layer of an input (B, C, H, W) and a weight (D, C, k, k), computed in `dtype`."""
        batch, channels, height, width = x.shape
        kernel, out = weight.shape[2], weight.shape[0]
        return cls(str(dtype).removeprefix("torch."), batch, channels, height, width, kernel, stride, padding, out)

    def __str__(self) -> str:
        """Without the batch: a run's last batch is smaller, and computed as the others are."""
        kernel = f"{self.kernel}x{self.kernel}/{self.stride}+{self.padding}"
        return f"{self.dtype} {self.channels}x{self.height}x{self.width} {kernel} {self.out}"

    @property
    def may_gain(self) -> bool:
        """Whether it is worth measuring: no larger map, and no fewer channels, gained (`benchmarks/small_maps.py`)."""
        pixels = -(-self.height // self.stride) * -(-self.width // self.stride)
        return min(self.channels, self.out) >= 32 and pixels <= (256 if self.winograd else 64)

    @property
    def winograd(self) -> bool:
        """Whether Winograd's algorithm computes it: in float32 only, half precision has too few bits for it."""
        how = (self.height, self.width, self.kernel, self.stride, self.padding)
        return self.dtype == "float32" and winograd.fits(*how)


class Choices:
    """What a run has chosen for the layers it met; the same for a layer from its first batch to its last.

    What is known is kept for the process and, beside the processor's name, in a file for the next one. A file that
    is damaged, foreign or cannot be written changes no result: layers are measured again.

    Args:
        table: of the machine; None for this one's.
    """

    def __init__(self, table: Table | None = None) -> None:
        self.table = _table(torch.get_num_threads()) if table is None else table
        self.made: dict[str, str] = {}
        """The passes that are products, of each layer that was met; read by whoever records a run."""
        self.asked: set[str] = set()
        """The layers that were asked for; see `chosen_by`."""

    def __deepcopy__(self, memo: Any) -> Choices:
        return self  # copies of a network choose alike

    def of(self, layer: Layer) -> str:
        """The passes of a layer that are products, in the order of `small_maps.PASSES`; an empty text if none is.

        By several processes none is: each might choose otherwise.
        """
        if world() > 1:
            return ""
        name = str(layer)
        self.asked.add(name)
        if name not in self.made:
            self.made[name] = self.table.look_up(layer) if layer.may_gain else ""
        return self.made[name]

    def record(self) -> dict[str, Any]:
        """For a checkpoint: the machine, and what was chosen on it."""
        return {"machine": self.table.machine, "chosen": self.made}

    def __str__(self) -> str:
        """For a result: the layers of which some passes are products, and which passes."""
        return "; ".join(f"{name}: {how}" for name, how in sorted(self.made.items()) if how)

    def restore(self, record: Any) -> None:
        """Choose as a record says, if it is of this machine; anything else is ignored."""
        if isinstance(record, Mapping) and record.get("machine") == self.table.machine and _valid(record.get("chosen")):
            self.made |= record["chosen"]


def chosen_by(network: nn.Module, run: Callable[[], object]) -> dict[str, str]:
    """What a network chooses for its layers while it is run: the passes that are products, of layers that have any."""
    asked = {
        choices for module in network.modules() if isinstance(choices := getattr(module, "choices", None), Choices)
    }
    for choices in asked:
        choices.asked.clear()
    run()
    return {name: choices.made[name] for choices in asked for name in choices.asked if choices.made[name]}


def use_products(network: nn.Module, choices: Choices) -> int:
    """Let the convolutions of a network ask, when it is trained, which of their passes are matrix products.

    In eval mode a convolution stays what it was, so an evaluation is the same wherever a network was trained.

    Args:
        network: changed in place; its parameters and their names stay.
        choices: are asked, for each shape once.

    Returns:
        How many convolutions ask.
    """
    found = [m for m in network.modules() if type(m) is nn.Conv2d and can_be_product(m)]
    for conv in found:
        conv.__class__ = ProductConvolution  # keeps parameters, names and hooks
        conv.choices = choices  # type: ignore[assignment]
    return len(found)


def can_be_product(conv: nn.Conv2d) -> bool:
    """Whether it is of the kinds that are computed here: 1×1 or 3×3, the same in both directions, not grouped."""
    square = all(len(set(pair)) == 1 for pair in (conv.kernel_size, conv.stride, conv.padding))
    plain = conv.groups == 1 and set(conv.dilation) == {1} and conv.padding_mode == "zeros"
    if not (square and plain) or isinstance(conv.padding, str):
        return False
    return conv.kernel_size[0] in (1, 3) and conv.padding[0] < conv.kernel_size[0]


class ProductConvolution(nn.Conv2d):
    """A convolution that differs from `nn.Conv2d` only in how it is computed in training on a CPU."""

    choices: Choices

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, H', W')."""
        if not self.training or x.device.type != "cpu" or x.dim() != 4 or torch.compiler.is_compiling():
            return super().forward(x)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        passes = self.choices.of(Layer.of(x, self.weight, self.stride[0], int(self.padding[0]), dtype))
        if not passes:
            return super().forward(x)
        bias = None if self.bias is None else self.bias.to(dtype)
        return small_maps.convolution(
            x.to(dtype), self.weight.to(dtype), bias, self.stride[0], int(self.padding[0]), passes
        )


class Table:
    """The choices of one machine: a processor, a version of PyTorch and a number of threads.

    Args:
        machine: its name.
        path: of the file that keeps them, with those of other machines; None keeps none.
        measure: gives the passes of a layer that are faster as products.
    """

    def __init__(self, machine: str, path: Path | None, measure: Callable[[Layer], str] | None = None) -> None:
        self.machine, self.path = machine, path
        self._measure = faster if measure is None else measure
        self._known: dict[str, str] = self._read().get(machine, {})

    def look_up(self, layer: Layer) -> str:
        """The passes that are products; measured if nobody has yet."""
        name = f"{layer.batch} {layer}"
        if name not in self._known:
            self._known |= self._read().get(self.machine, {})
        if name not in self._known:
            self._known[name] = self._measure(layer)
            self._write()
        return self._known[name]

    def _read(self) -> dict[str, dict[str, str]]:
        if self.path is None or not self.path.exists():
            return {}
        try:
            record = read_json(self.path)
        except InputError as error:
            logger.info("convolutions are measured anew: %s", error)
            return {}
        machines = record.get("machines")
        if record.get("format") != FORMAT or not isinstance(machines, dict) or not all(map(_valid, machines.values())):
            logger.info("convolutions are measured anew: %s is no table of them", self.path)
            return {}
        return machines

    def _write(self) -> None:
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            found = self._read()
            self._known |= found.get(self.machine, {})  # whoever chose first chose for all: runs side by side agree
            write_json(self.path, {"format": FORMAT, "machines": found | {self.machine: self._known}})
        except (OSError, InputError) as error:
            logger.info("which convolutions are faster as products is not kept: %s", error)
            self.path = None


def _valid(choices: Any) -> bool:
    return isinstance(choices, dict) and all(
        isinstance(name, str) and isinstance(how, str) and re.fullmatch("[fF]?[iI]?[wW]?", how)
        for name, how in choices.items()
    )


@cache
def _table(threads: int) -> Table:
    """This machine's."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    capability = torch.backends.cpu.get_cpu_capability()
    machine = f"{processor()}, {capability}, torch {torch.__version__}, {threads} threads"
    return Table(machine, root / "sftn" / "convolutions.json")


def faster(layer: Layer) -> str:
    """The passes of a layer that are faster as products on this machine, now."""
    chosen = ""
    for ways in times(layer).values():
        best = min(ways, key=lambda way: ways[way] * (1 if way == CONVOLUTION else 1 / GAIN))
        chosen += "" if best == CONVOLUTION else best
    return chosen


@torch.no_grad()
def times(layer: Layer) -> dict[str, dict[str, float]]:
    """For each pass, the seconds of each way: a convolution (`CONVOLUTION`), or the letter of the product.

    What counts is the computing time of this thread, the least of a few repeats, so that other processes on the
    machine don't decide. The numbers come from a generator of their own.
    """
    draws, dtype = torch.Generator().manual_seed(0), getattr(torch, layer.dtype)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draws).to(dtype).contiguous(memory_format=torch.channels_last)

    x = drawn(layer.batch, layer.channels, layer.height, layer.width)
    weight = drawn(layer.out, layer.channels, layer.kernel, layer.kernel)
    bias, how = torch.zeros(layer.out, dtype=dtype), (layer.stride, layer.padding)
    grad = drawn(*small_maps.convolved(x, weight, bias, *how).shape)

    def usual(*wanted: bool) -> Callable[[], Any]:
        sides = ([layer.stride] * 2, [layer.padding] * 2, [1, 1], False, [0, 0], 1)
        return lambda: torch.ops.aten.convolution_backward(grad, x, weight, [layer.out], *sides, [*wanted, False])

    passes: dict[str, dict[str, Callable[[], Any]]] = {
        "f": {
            CONVOLUTION: lambda: torch.conv2d(x, weight, bias, *how),
            "f": lambda: small_maps.convolved(x, weight, bias, *how),
            "F": lambda: winograd.convolved(x, weight, bias),
        },
        "i": {
            CONVOLUTION: usual(True, False),
            "i": lambda: small_maps.input_gradient(grad, weight, x.shape, *how),
            "I": lambda: winograd.input_gradient(grad, weight),
        },
        "w": {
            CONVOLUTION: usual(False, True),
            "w": lambda: small_maps.weight_gradient(grad, x, layer.kernel, *how),
            "W": lambda: winograd.weight_gradient(grad, x),
        },
    }
    return {
        name: _in_turn({way: compute for way, compute in ways.items() if way.islower() or layer.winograd})
        for name, ways in passes.items()
    }


def _in_turn(ways: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """The least computing time of each way; the first time, when memory and kernels are made, is left out."""
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(1 + REPEATS):
        for way, compute in ways.items():
            began = time.thread_time()
            compute()
            spent[way].append(time.thread_time() - began)
    return {way: min(seconds[1:]) for way, seconds in spent.items()}
