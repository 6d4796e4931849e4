"""Several processes that share every batch: what they compute together, so that they get what one process would get.

Each process has a share of every global batch, weighs its loss by that share (`Shares`) and has its gradient averaged
with those of the others by PyTorch's DistributedDataParallel. That is the gradient of one process as long as whatever
compares images sees all of them: losses say so by `gathered`, batch norms are given the statistics of the global batch
by `Shares`. In one process everything here is the identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_SIZES: ContextVar[tuple[int, ...] | None] = ContextVar("sizes", default=None)
"""How many images of this step each process has, where that is known without asking the others."""


def world() -> int:
    """How many processes there are; 1 if there is no process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, counted from 0."""
    return dist.get_rank() if world() > 1 else 0


def part(begin: int, end: int, rank: int, world: int) -> slice:
    """The share of one process of the images from `begin` to `end`: contiguous, in order, alike up to one image."""
    count = end - begin
    return slice(begin + count * rank // world, begin + count * (rank + 1) // world)


class _Total(Function):
    # Not torch.distributed.nn.functional.all_reduce, which newer versions of PyTorch call deprecated.
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(tensor)
        return tensor

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _Total.apply(grads[0])


def total(tensor: Tensor) -> Tensor:
    """The sum over the processes, of the same shape; the gradient is the sum of the processes' gradients."""
    return tensor if world() == 1 else _Total.apply(tensor)


def mean_over_batch(values: Tensor) -> Tensor:
    """The mean of all numbers of the global batch: a scalar, of this process's (B, ...)."""
    if world() == 1:
        return values.mean()
    both = total(torch.stack([values.double().sum(), values.new_tensor(values.numel(), dtype=torch.float64)]))
    return (both[0] / both[1]).to(values.dtype)


def gathered(rows: Tensor) -> Tensor:
    """(B, ...) of each process -> all of them, in the order of the global batch, with gradient; halves become float32.

    For losses that compare images with each other. Every process then computes the loss of the whole batch, and each
    gets back the gradient of its own rows from all of them. In a loop of one's own too, under any library that makes a
    process group; all processes must call it equally often.
    """
    if world() == 1:
        return rows
    if rows.dtype in (torch.float16, torch.bfloat16):
        rows = rows.float()
    sizes = _SIZES.get() or _asked(len(rows), rows.device)
    each, rest = divmod(len(rows), max(sizes[rank()], 1))  # several rows an image where a method makes views of it
    assert rest == 0, "rows that are no multiple of the images"
    before, after = (each * sum(some) for some in (sizes[: rank()], sizes[rank() + 1 :]))
    # Zeros elsewhere and a sum: x + 0 is x, whatever the shares are, and the backward pass is the sum wanted.
    return total(torch.cat([rows.new_zeros(before, *rows.shape[1:]), rows, rows.new_zeros(after, *rows.shape[1:])]))


def _asked(own: int, device: torch.device) -> tuple[int, ...]:
    sizes = torch.zeros(world(), dtype=torch.long, device=device)
    sizes[rank()] = own
    dist.all_reduce(sizes)
    return tuple(sizes.tolist())


class GlobalBatches(Protocol):
    """What knows how large the global batches of an epoch are."""

    def images(self, step: int) -> int:
        """How many images the batch of a step (from 1) has, over all processes."""


class Shares:
    """The processes' shares of the batches of a loader.

    Args:
        loader: knows how many images the global batches have.
        whole_norms: whether batch norms are given the statistics of the global batch.
    """

    def __init__(self, loader: GlobalBatches, whole_norms: bool = True) -> None:
        self.loader, self.whole_norms = loader, whole_norms
        self._mode = WholeNorms()

    @contextmanager
    def of(self, step: int) -> Iterator[float]:
        """While this lasts, a step (from 1) is computed; gives the weight of this process's loss.

        A loss that is a mean over images counts as much as its images do among all; one of gathered images is the
        same in all processes, and the weights make it count once.
        """
        if world() == 1:
            yield 1.0
            return
        images = self.loader.images(step)
        parts = [part(0, images, each, world()) for each in range(world())]
        sizes = tuple(own.stop - own.start for own in parts)
        token = _SIZES.set(sizes)
        try:
            if self.whole_norms:
                with self._mode:
                    yield world() * sizes[rank()] / images
            else:
                yield world() * sizes[rank()] / images
        finally:
            _SIZES.reset(token)

    def settle(self, task: nn.Module) -> None:
        """Give all processes the first one's running statistics, where each has kept its own."""
        if world() > 1 and not self.whole_norms:
            for buffer in task.buffers():
                dist.broadcast(buffer, 0)


class WholeNorms(TorchFunctionMode):
    """While it is active, what batch norms normalise by are statistics of the global batch.

    It stands in for `torch.nn.functional.batch_norm`, so no module is exchanged: subclasses of batch norm with an
    activation of their own, copies without running statistics and the keys of the state stay what they are.
    """

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called for every function of PyTorch."""
        kwargs = kwargs or {}
        return _norm(*args, **kwargs) if func is F.batch_norm else func(*args, **kwargs)


def _norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    with torch._C.DisableTorchFunction():
        if not training:
            return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        if input.is_cuda:
            from torch.nn.modules._functions import SyncBatchNorm

            group = dist.group.WORLD
            return SyncBatchNorm.apply(input, weight, bias, running_mean, running_var, eps, momentum, group, world())
        return whole_norm(input, running_mean, running_var, weight, bias, momentum, eps)


def whole_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """Batch norm by the statistics of the global batch, on any device; PyTorch's own is for GPUs only.

    Sums are taken in float64: the mean, then the squares about it.
    """
    values = input if input.dtype == torch.float64 else input.float()
    others = [dim for dim in range(values.dim()) if dim != 1]
    row = [-1 if dim == 1 else 1 for dim in range(values.dim())]
    own = values.new_full((1,), values.numel() // values.shape[1], dtype=torch.float64)
    sums = total(torch.cat([values.sum(others, dtype=torch.float64), own]))
    mean, count = sums[:-1] / sums[-1], sums[-1].detach()
    centred = values - mean.to(values.dtype).view(row)
    variance = total(centred.square().sum(others, dtype=torch.float64)) / count
    output = centred * (variance + eps).rsqrt().to(values.dtype).view(row)
    if weight is not None:
        output = output * weight.view(row)
    if bias is not None:
        output = output + bias.view(row)
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        if running_var is not None:
            running_var.lerp_((variance * count / (count - 1)).to(running_var.dtype), momentum)
    return output.to(input.dtype)
