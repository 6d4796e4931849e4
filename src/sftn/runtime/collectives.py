"""Collectives for processes that share every batch, so that together they compute what one process would.

Each process has a share of every global batch and weights its loss by that share (`Shares`); PyTorch's
DistributedDataParallel averages the gradients. The result is the gradient of one process, provided that everything that
compares images sees all of them: losses call `gathered`, and `Shares` gives batch norms the statistics of the global
batch. In a single process everything here is the identity.
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
"""Number of images of this step in each process, if it is known without communication."""


def world() -> int:
    """The number of processes; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, counted from 0."""
    return dist.get_rank() if world() > 1 else 0


def part(begin: int, end: int, rank: int, world: int) -> slice:
    """One process's share of the images from `begin` to `end`: contiguous, in order, equal in size up to one image."""
    count = end - begin
    return slice(begin + count * rank // world, begin + count * (rank + 1) // world)


class _Total(Function):
    # torch.distributed.nn.functional.all_reduce is deprecated in newer versions of PyTorch.
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(tensor)
        return tensor

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _Total.apply(grads[0])


def total(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all processes, in its shape; the gradient is the sum of the processes' gradients."""
    return tensor if world() == 1 else _Total.apply(tensor)


def mean_over_batch(values: Tensor) -> Tensor:
    """The mean over the global batch, as a scalar, of values of which this process has (B, ...)."""
    if world() == 1:
        return values.mean()
    both = total(torch.stack([values.double().sum(), values.new_tensor(values.numel(), dtype=torch.float64)]))
    return (both[0] / both[1]).to(values.dtype)


def gathered(rows: Tensor) -> Tensor:
    """Gather (B, ...) rows of all processes in the order of the global batch, with gradient; halves become float32.

    For losses that compare images with each other: every process then computes the loss of the whole batch and gets
    back the gradient of its own rows from all processes. It works in your own loop too, under any library that makes a
    process group; all processes must call it equally often.
    """
    if world() == 1:
        return rows
    if rows.dtype in (torch.float16, torch.bfloat16):
        rows = rows.float()
    sizes = _SIZES.get() or _exchanged_sizes(len(rows), rows.device)
    each, rest = divmod(len(rows), max(sizes[rank()], 1))  # several rows per image if a method makes views of it
    assert rest == 0, "the number of rows is not a multiple of the number of images"
    before, after = (each * sum(some) for some in (sizes[: rank()], sizes[rank() + 1 :]))
    # Pad with zeros and sum: x + 0 is x, whatever the shares are, and the backward pass is the required sum.
    return total(torch.cat([rows.new_zeros(before, *rows.shape[1:]), rows, rows.new_zeros(after, *rows.shape[1:])]))


def _exchanged_sizes(own: int, device: torch.device) -> tuple[int, ...]:
    sizes = torch.zeros(world(), dtype=torch.long, device=device)
    sizes[rank()] = own
    dist.all_reduce(sizes)
    return tuple(sizes.tolist())


class GlobalBatches(Protocol):
    """A source of batches that knows the sizes of the global batches of an epoch."""

    def images(self, step: int) -> int:
        """The number of images in the batch of a step (from 1), over all processes."""


class Shares:
    """The processes' shares of the batches of a loader.

    Args:
        loader: gives the sizes of the global batches.
        whole_norms: whether batch norms use the statistics of the global batch.
    """

    def __init__(self, loader: GlobalBatches, whole_norms: bool = True) -> None:
        self.loader, self.whole_norms = loader, whole_norms
        self._mode = WholeNorms()

    @contextmanager
    def of(self, step: int) -> Iterator[float]:
        """A context in which a step (from 1) is computed; yields the weight of this process's loss.

        A loss that is a mean over images is weighted by this process's share of the images; a loss over gathered images
        is the same in all processes, and the weights make it count once.
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
        """Give all processes the first one's buffers, if each has had its own running statistics."""
        if world() > 1 and not self.whole_norms:
            for buffer in task.buffers():
                dist.broadcast(buffer, 0)


class WholeNorms(TorchFunctionMode):
    """A context in which batch norms normalise by the statistics of the global batch.

    It replaces `torch.nn.functional.batch_norm`, so no module is exchanged: subclasses of batch norm with a built-in
    activation, copies without running statistics and the keys of the state remain as they are.
    """

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by PyTorch for each of its functions."""
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
    """Batch norm by the statistics of the global batch, on any device; PyTorch's SyncBatchNorm is for GPUs only.

    Sums are accumulated in float64: first for the mean, then for the squared deviations from it.
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
