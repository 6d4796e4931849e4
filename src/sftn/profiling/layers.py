"""The layers of a network, recorded from one forward pass, so that they are known for any network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakTensorKeyDictionary

from sftn.networks.staged import Shape, StagedNet, eval_mode
from sftn.tasks.student_branches import Branch, StudentBranches


@dataclass(frozen=True)
class Layer:
    """A row of Tables 20 to 22: an operator that computes something, not one that only moves numbers (a view, a split).

    Shapes are those of one image; None stands for the tables' "-".
    """

    name: str
    """Kind and number, such as "Conv2d-1"; numbers follow the order of execution and continue in the branches."""
    inputs: tuple[str, ...]
    """The names of the layers that it reads."""
    input_shape: tuple[int, ...] | None
    """The output shape of the first of them, before any flattening."""
    kernel: tuple[int, ...] | None
    channels: int | None
    """Output channels of a convolution or a normalisation."""
    stride: tuple[int, ...] | None
    padding: tuple[int, ...] | None
    output_shape: tuple[int, ...]
    block: str
    """The block: "B_T^1", the transform "T^1", "B_S^2"; "-" for the head. The stem belongs to the first block."""
    branch: int
    """The branch's number; 0 for the network itself."""
    parameters: int
    """Number of parameters; each is counted where it is first used."""
    multiply_adds: int
    """Multiply-adds of convolutions, linear layers and matrix products; other operators count as 0."""

    @property
    def cells(self) -> tuple[str, ...]:
        """The row's nine columns as printed in the tables."""
        return (
            self.name,
            ", ".join(self.inputs) or "-",
            times(self.input_shape),
            times(self.kernel),
            "-" if self.channels is None else str(self.channels),
            single(self.stride),
            single(self.padding),
            times(self.output_shape),
            self.block,
        )


def layers(network: StagedNet, image: Shape, *, symbol: str = "B") -> list[Layer]:
    """The layers of a network for a (C, H, W) image, the image itself first; blocks are named `symbol`^1, ….

    The network is run once in eval mode; its mode and state are not changed.
    """
    return trace(network, image, symbol)


def branch_layers(branches: StudentBranches, image: Shape) -> list[Layer]:
    """The layers of a teacher's branches; their numbers continue those of the teacher's layers (Table 22)."""
    return [layer for layer in trace(branches.teacher, image, "B_T", branches) if layer.branch]


def trace(network: StagedNet, image: Shape, symbol: str, grown: StudentBranches | None = None) -> list[Layer]:
    """The layers of a network as `layers` describes them, followed by those of its branches if `grown` is given."""
    reference = next(network.parameters())
    images = torch.zeros(1, *image, dtype=reference.dtype, device=reference.device)
    with _evaluated(grown or network), _Watch(grown or network, images) as watch:
        watch.block = f"{symbol}^1"
        features, flow = [], network.stem(images).flow
        for stage, run in enumerate(network.stages, 1):
            watch.block = f"{symbol}^{stage}"
            feature, _, flow = run(flow)
            features.append(feature)
        watch.block = "-"
        network.head(flow)
        if grown:
            _trace_branches(watch, grown, features)
    return watch.rows


def _trace_branches(watch: _Watch, grown: StudentBranches, features: list[Tensor]) -> None:
    for place, branch in zip(grown.growth, cast(Sequence[Branch], grown.branches)):
        watch.block, watch.branch = f"T^{place.number}", place.number
        flow = branch.transform(features[place.teacher_stage])
        for stage, run in enumerate(branch.stages, place.student_stage + 2):
            watch.block = f"B_S^{stage}"
            flow = run(flow).flow
        watch.block = "-"
        branch.head(flow)


class _Origin(NamedTuple):
    """The origin of a tensor: rows of the table, and parameters that no row has used yet."""

    rows: tuple[int, ...]
    parameters: tuple[int, ...]


_MOVES = {"clone", "copy", "_to_copy", "_unsafe_view", "index", "roll", "flip"}
"""Operators that only move numbers, besides views, which torch marks as such."""


class _Watch(TorchDispatchMode):
    """Records every operator that computes something from the image."""

    def __init__(self, module: nn.Module, image: Tensor) -> None:
        super().__init__()
        shape = tuple(image.shape[1:])
        self.rows = [Layer("Image", (), None, None, None, None, None, shape, "-", 0, 0, 0)]
        self.block, self.branch = "-", 0
        # Weak, so that no activation outlives its use in the forward pass and none is mistaken for another.
        self.origins = WeakTensorKeyDictionary({p: _Origin((), (id(p),)) for p in module.parameters()})
        self.origins[image] = _Origin((0,), ())
        self.uncounted = {id(p): p.numel() for p in module.parameters()}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        known = [tensor for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)]
        known = [tensor for tensor in known if tensor in self.origins]
        origins = [self.origins[tensor] for tensor in known]
        origin = _Origin(_union(o.rows for o in origins), _union(o.parameters for o in origins))
        # In-place operators change their input: its shape is looked up first.
        shape = next((tuple(t.shape[1:]) for t, o in zip(known, origins) if o.rows), ())
        result = func(*args, **kwargs)
        made = [tensor for tensor in tree_leaves(result) if isinstance(tensor, Tensor)]
        name = func.overloadpacket.__name__.rstrip("_")
        if made and origin.rows and not func.is_view and name not in _MOVES:
            arguments = func._schema.arguments
            given = {a.name: a.default_value for a in arguments} | dict(zip([a.name for a in arguments], args)) | kwargs
            count = flop_registry.get(func.overloadpacket)
            flops = count(*args, **kwargs, out_val=result) if count else 0
            origin = self._note(name, given, origin, shape, made[0], flops)
        for tensor in made:
            self.origins[tensor] = origin
        return result

    def _note(
        self, name: str, given: dict[str, Any], origin: _Origin, shape: tuple[int, ...], output: Tensor, flops: int
    ) -> _Origin:
        before = self.rows[origin.rows[0]].output_shape
        kind = _kind(name, given, output, learned=bool(origin.parameters))
        kernel = given["weight"].shape[2:] if name == "convolution" else given.get("kernel_size")
        channels = output.shape[-1 if kind == "LayerNorm" else 1] if "Norm" in kind or name == "convolution" else None
        self.rows.append(
            Layer(
                name=f"{kind}-{len(self.rows)}",
                inputs=tuple(self.rows[row].name for row in origin.rows),
                input_shape=before if math.prod(shape) == math.prod(before) else shape,
                kernel=tuple(kernel) if kernel else None,
                channels=channels,
                stride=tuple(given.get("stride") or kernel) if kernel else None,
                padding=tuple(given["padding"]) if kernel else None,
                output_shape=tuple(output.shape[1:]),
                block=self.block,
                branch=self.branch,
                parameters=sum(self.uncounted.pop(parameter, 0) for parameter in origin.parameters),
                multiply_adds=flops // 2,
            )
        )
        return _Origin((len(self.rows) - 1,), ())


def _union(groups: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(key for group in groups for key in group))


def _kind(name: str, given: dict[str, Any], output: Tensor, *, learned: bool) -> str:
    """The tables' name of an operator; for one that they do not have, torch's own, such as "UpsampleBilinear2d"."""
    spatial = max(1, output.dim() - 2)
    if name == "convolution":
        return f"Conv{'Transpose' if given['transposed'] else ''}{spatial}d"
    if "batch_norm" in name:
        return f"BatchNorm{spatial}d"
    if name in ("addmm", "mm") and learned:
        return "Linear"
    if name == "mean" and given["self"].dim() == 4 and {axis % 4 for axis in given.get("dim") or ()} == {2, 3}:
        return "AvgPool2d"
    if name == "hardtanh" and (given["min_val"], given["max_val"]) == (0, 6):
        return "Relu6"
    name = name.removeprefix("native_").removesuffix("_with_indices").replace("_adaptive_", "_")
    return "".join(word.capitalize() for word in name.split("_"))


@contextmanager
def _evaluated(module: nn.Module) -> Iterator[None]:
    """Eval mode without gradients, with attention in separate operators, so that their multiply-adds are counted."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with eval_mode(module), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def times(shape: Sequence[int] | None) -> str:
    """(3, 32, 32) -> "3x32x32"; None -> "-"."""
    return "-" if shape is None else "x".join(map(str, shape))


def single(sizes: Sequence[int] | None) -> str:
    """(2, 2) -> "2", (2, 1) -> "2x1"; None -> "-"."""
    return str(sizes[0]) if sizes and len(set(sizes)) == 1 else times(sizes)
