"""Folding a frozen network for inference: batch norms into the preceding convolutions, with ReLUs and sums fused.

Networks do not declare what can be folded; one dry forward shows it: a batch norm that is the only reader of a
convolution's output becomes part of its weight and bias, and a ReLU that is the only reader of the result is applied
by the convolution. In this package's residual blocks the last convolution also adds the shortcut. A pre-activation
network keeps the batch norms that precede a convolution, because its padding is zero only after them.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sftn.errors import InputError
from sftn.networks.families import layers, wrn
from sftn.networks.fast import small_maps, winograd
from sftn.networks.fast.product_choices import Choices, Layer, can_be_product
from sftn.networks.staged import Shape, StagedNet, Tap


@torch.no_grad()
def folded(
    network: StagedNet, image: Shape, dtype: torch.dtype = torch.float32, choices: Choices | None = None
) -> StagedNet:
    """Make a folded copy that computes what the network computes in eval mode, up to rounding, and cannot be trained.

    In float32 every activation agrees within 1e-5 of its largest value. In half precision a convolution, its batch
    norm, sum and ReLU are rounded once where the network rounds up to four times: the features' error against float32
    is 0.81 to 0.89 of the network's own for ResNets, WRNs and VGGs, and 1.04 to 1.13 for ShuffleNet V2.

    Args:
        network: frozen; it is not changed. It must not normalise by the batch's statistics, as OH's teacher does.
        image: (C, H, W) of the images; the copy takes other sizes, too.
        dtype: type of the weights of convolutions and linear layers; half precision needs autocast around the copy.
        choices: which convolutions are computed as products of matrices; None for none.

    Returns:
        A StagedNet without closing norms; make a `Pair` from the original network.

    Raises:
        InputError: a batch norm of the network has no running statistics.
    """
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is None for m in network.modules()):
        raise InputError(f"{network.name} normalises by the batch's statistics: it cannot be folded")
    network = copy.deepcopy(network).eval().requires_grad_(False)
    new: dict[nn.Module, nn.Module] = {}
    for conv, norm, relu in _chains(network, image):
        new[conv] = Convolution(conv, norm, relu is not None, choices)
        new |= {module: nn.Identity() for module in (norm, relu) if module is not None}
    _put(network, new)
    for number, stage in enumerate(network.stages):
        if isinstance(stage, layers.Stage) and _residual(stage):
            network.stages[number] = _Stage(stage)
        elif isinstance(stage, wrn.Stage):
            stage.blocks = nn.Sequential(*map(_PreActivated, stage.blocks, range(len(stage.blocks))))
    for module in network.modules():
        if type(module) in (Convolution, nn.Conv2d, nn.Linear):
            module.to(dtype)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Convolution(nn.Module):
    """A folded convolution, relu(conv(x) + onto), rounded once; with oneDNN on a CPU it is one operation.

    Args:
        conv: the convolution whose weights are used.
        norm: the batch norm after it, in eval mode.
        relu: whether the result is rectified.
        choices: whether it is computed as a product of matrices; None for no.
    """

    def __init__(
        self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None, relu: bool, choices: Choices | None = None
    ) -> None:
        super().__init__()
        weight, bias = conv.weight, conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias
        if norm is not None:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = (norm.running_var + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight)
            weight = weight * scale[:, None, None, None]
            bias = (bias - norm.running_mean) * scale + (0 if norm.bias is None else norm.bias)
        self.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
        self.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.how = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self.relu = relu
        self.choices = choices if can_be_product(conv) else None

    def forward(self, x: Tensor) -> Tensor:
        """Compute the convolution: (B, C, H, W) -> (B, D, H', W')."""
        x = x.to(self.weight.dtype)
        if _fuses(x):
            after: tuple[Any, ...] = ("relu" if self.relu else "none", [], "")
            way = self._way(x)
            if way == "F":
                out = winograd.convolved(x, self.weight, self.bias)
                return out.relu_() if self.relu else out
            if way == "f":
                return small_maps.inferred(x, self.weight, self.bias, *self._sides(), after)
            return torch.ops.mkldnn._convolution_pointwise(x, self.weight, self.bias, *self.how, *after)
        out = self._plain(x)
        return out.relu_() if self.relu else out

    def add(self, x: Tensor, onto: Tensor, *, spoil: bool) -> Tensor:
        """Compute it and add `onto`, which has the result's shape and may be overwritten if `spoil`."""
        x, onto = x.to(self.weight.dtype), onto.to(self.weight.dtype)
        if self._way(x) == "F":
            out = winograd.convolved(x, self.weight, self.bias).add_(onto)
            return out.relu_() if self.relu else out
        if _fuses(x):
            after: tuple[Any, ...] = ("add", 1.0, "relu" if self.relu else None, [], None)
            onto = onto if spoil else onto.clone(memory_format=torch.channels_last)
            return torch.ops.mkldnn._convolution_pointwise_.binary(onto, x, self.weight, self.bias, *self.how, *after)
        out = self._plain(x).add_(onto)
        return out.relu_() if self.relu else out

    def _way(self, x: Tensor) -> str:
        """How the forward is computed: f as a product of matrices, F by Winograd's algorithm, else as a convolution."""
        if self.choices is None or not _fuses(x) or torch.compiler.is_compiling():
            return ""
        return self.choices.of(Layer.of(x, self.weight, *self._sides(), x.dtype))[:1]

    def _sides(self) -> tuple[int, int]:
        """Stride and padding of both directions, where a product of matrices is possible."""
        padding, stride, *_ = self.how
        return int(stride[0]), int(padding[0])

    def _plain(self, x: Tensor) -> Tensor:
        padding, stride, dilation, groups = self.how
        return F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups)


class _Stage(nn.Module):
    """A stage of residual blocks whose sums, and all ReLUs but the closing one, are computed by convolutions."""

    def __init__(self, stage: layers.Stage) -> None:
        super().__init__()
        last = len(stage.blocks) - 1
        self.blocks = nn.Sequential(*(_Adding(block, k, relu=k < last) for k, block in enumerate(stage.blocks)))

    def forward(self, flow: Tensor) -> Tap:
        preact = self.blocks(flow)
        feature = preact.relu()
        return Tap(feature, preact, feature)


class _Adding(nn.Module):
    """A residual block whose last convolution adds the shortcut, in place if nothing else reads the block's input."""

    def __init__(self, block: Any, number: int, *, relu: bool) -> None:
        super().__init__()
        *body, self.last, _ = block.body
        self.last.relu = relu
        self.body, self.shortcut = nn.Sequential(*body), block.shortcut
        self.spoil = number > 0 or not isinstance(block.shortcut, nn.Identity)

    def forward(self, flow: Tensor) -> Tensor:
        return self.last.add(self.body(flow), self.shortcut(flow), spoil=self.spoil)


class _PreActivated(nn.Module):
    """A folded WRN block, whose shortcut is the input or reads the output of the first ReLU."""

    def __init__(self, block: Any, number: int) -> None:
        super().__init__()
        self.block = block
        self.last = Convolution(block.conv2, None, relu=False)
        self.spoil = number > 0 or block.shortcut is not None

    def forward(self, flow: Tensor) -> Tensor:
        block = self.block
        active = flow if block.norm1 is None else block.norm1(flow).relu_()
        onto = flow if block.shortcut is None else block.shortcut(active)
        return self.last.add(block.relu2(block.norm2(block.conv1(active))), onto, spoil=self.spoil)


def _residual(stage: layers.Stage) -> bool:
    """Whether a stage has only residual blocks with shortcuts, closed by ReLUs, whose last norms were folded."""
    return type(stage.closing) is nn.ReLU and all(
        isinstance(block, layers.Residual) and block.shortcut is not None and isinstance(block.body[-2], Convolution)
        for block in stage.blocks
    )


def _fuses(x: Tensor) -> bool:
    """Whether oneDNN computes everything in one operation."""
    return (
        x.device.type == "cpu" and torch.backends.mkldnn.is_available() and x.dtype in (torch.float32, torch.bfloat16)
    )


class _Chain(NamedTuple):
    conv: nn.Conv2d
    norm: nn.BatchNorm2d
    relu: nn.ReLU | None


class _Readers(TorchDispatchMode):
    """Counts the operations that read each tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count.update({id(leaf) for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)})
        return func(*args, **(kwargs or {}))


def _chains(network: StagedNet, image: Shape) -> Iterator[_Chain]:
    """Find convolutions followed by a batch norm and perhaps a ReLU, where nothing else reads the values in between."""
    calls: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}  # keeps the tensors alive, so that no id is reused

    def note(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        calls.setdefault(module, []).append((given[0], out))

    watched = [m for m in network.modules() if type(m) in (nn.Conv2d, nn.BatchNorm2d, nn.ReLU)]
    hooks = [module.register_forward_hook(note) for module in watched]
    reference = next(network.parameters())
    dry = torch.zeros(1, *image, dtype=reference.dtype, device=reference.device)
    try:
        with _Readers() as readers:
            left = network.activations(dry.contiguous(memory_format=torch.channels_last))
    finally:
        for hook in hooks:
            hook.remove()
    readers.count.update(id(leaf) for leaf in tree_leaves(left))
    once = {module: pairs[0] for module, pairs in calls.items() if len(pairs) == 1}
    after = {id(given): module for module, (given, _) in once.items()}

    def next_of(module: nn.Module, kind: type[nn.Module]) -> Any:
        out = once[module][1]
        follower = after.get(id(out))
        return follower if type(follower) is kind and readers.count[id(out)] == 1 else None

    for conv in once:
        if type(conv) is nn.Conv2d and conv.padding_mode == "zeros" and not isinstance(conv.padding, str):
            norm = next_of(conv, nn.BatchNorm2d)
            if norm is not None:
                yield _Chain(conv, norm, next_of(norm, nn.ReLU))


def _put(network: nn.Module, new: dict[nn.Module, nn.Module]) -> None:
    """Replace modules wherever they occur."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if child in new:
                setattr(parent, name, new[child])
