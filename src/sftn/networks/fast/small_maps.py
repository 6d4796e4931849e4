"""Convolutions of many channels on small maps as matrix products, on a CPU.

oneDNN's convolutions go along a row of the output, so maps of 4×4 leave most of a tile of AMX empty: 512→512 channels,
3×3, 64 images, bf16 take 16 ms forward, 16 for the gradient of the input and 42 for that of the weight (torch 2.13,
oneDNN 3.12, one thread). Each is one product of matrices here: the pixels that an output sees are laid side by side,
in one copy of whole runs of channels, and 6, 7 and 6 ms are all that it takes. On large maps the copy costs more than
it gains, and the convolution wins.

Each result is rounded once, as a convolution's is; only the order of the sum differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sftn.networks.fast import winograd

PASSES = "fiw"
"""Forward, the gradient of the input, the gradient of the weight; a capital letter is for Winograd's algorithm."""

_ROWS = 512
"""Above which oneDNN's products have the same bits, whatever their number (3.12, AMX; 256 rows of 2304 have not)."""


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, passes: str = PASSES
) -> Tensor:
    """`F.conv2d`, with some of its passes as matrix products; fastest in channels-last.

    Args:
        x: (B, C, H, W)
        weight: (D, C, k, k)
        bias: (D,)
        stride: of both directions.
        padding: zeros at each side, fewer than k.
        passes: which are products: f (forward), i (the gradient of the input), w (of the weight); a capital letter is
            for Winograd's algorithm.

    Returns:
        (B, D, H', W')
    """
    out: Tensor = _Convolution.apply(x, weight, bias, stride, padding, passes)
    return out


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, passes: str
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.passes = stride, padding, passes
        if "F" in passes:
            return winograd.convolved(x, weight, bias)
        if "f" in passes:
            return convolved(x, weight, bias, stride, padding)
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, weight) = grads, ctx.saved_tensors
        how, wanted = (ctx.stride, ctx.padding), ctx.needs_input_grad[:3]
        products = [wanted[0] and "i" in ctx.passes.lower(), wanted[1] and "w" in ctx.passes.lower()]
        found: list[Tensor | None] = [None, None, None]
        if any(products):
            grad = grad.contiguous(memory_format=torch.channels_last)
        if products[0]:
            fast = "I" in ctx.passes
            found[0] = winograd.input_gradient(grad, weight) if fast else input_gradient(grad, weight, x.shape, *how)
        if products[1]:
            fast = "W" in ctx.passes
            found[1] = winograd.weight_gradient(grad, x) if fast else weight_gradient(grad, x, weight.shape[2], *how)
            if wanted[2]:
                found[2] = grad.sum((0, 2, 3))
        rest = [need and one is None for need, one in zip(wanted, found)]
        if any(rest):
            sides = ([ctx.stride] * 2, [ctx.padding] * 2, [1, 1], False, [0, 0], 1)
            others = torch.ops.aten.convolution_backward(grad, x, weight, [len(weight)], *sides, rest)
            found = [one if need else known for need, one, known in zip(rest, others, found)]
        return (*found, None, None, None)


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """(B, C, H, W) * (D, C, k, k) -> (B, D, H', W'), in channels-last."""
    rows, height, width = columns(x, weight.shape[2], stride, padding)
    out = F.linear(rows, _as_matrix(weight), bias)
    return out.view(len(x), height, width, -1).permute(0, 3, 1, 2)


def inferred(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int, after: tuple[Any, ...]) -> Tensor:
    """`convolved` for a frozen network, and what follows it, in one operation of oneDNN.

    oneDNN sums in another order where it has few rows. Zeros fill these up, so that an image's answer does not depend
    on how many others are in the batch: only then can answers be kept (`sftn.training.output_cache`).

    Args:
        x: (B, C, H, W), float32 or bf16.
        weight: (D, C, k, k)
        bias: (D,)
        stride: of both directions.
        padding: zeros at each side, fewer than k.
        after: the operation that follows, as `torch.ops.mkldnn._linear_pointwise` takes it.

    Returns:
        (B, D, H', W'), in channels-last.
    """
    rows, height, width = columns(x, weight.shape[2], stride, padding)
    known = len(rows)
    if known < _ROWS:
        rows = torch.cat([rows, rows.new_zeros(_ROWS - known, rows.shape[1])])
    out = torch.ops.mkldnn._linear_pointwise(rows, _as_matrix(weight), bias, *after)[:known]
    return out.view(len(x), height, width, -1).permute(0, 3, 1, 2)


def input_gradient(grad: Tensor, weight: Tensor, shape: Sequence[int], stride: int, padding: int) -> Tensor:
    """(B, D, H', W') * (D, C, k, k) -> the gradient of the input of this shape, in channels-last.

    Pixels that lie `stride` apart see the same taps of the kernel: each such set is a convolution of the gradient.
    """
    batch, channels, *sides = shape
    kernel = weight.shape[2]
    out = grad.new_empty(batch, *sides, channels)
    taps = weight.permute(2, 3, 0, 1)
    for top in range(min(stride, sides[0])):
        for left in range(min(stride, sides[1])):
            seen = [range((first + padding) % stride, kernel, stride)[::-1] for first in (top, left)]
            part = out[:, top::stride, left::stride]
            if not all(seen):
                part.zero_()
                continue
            start = [(first + padding - tap[0]) // stride for first, tap in zip((top, left), seen)]
            rows = _patches(grad, (len(seen[0]), len(seen[1])), 1, start, part.shape[1:3])
            chosen = taps[list(seen[0])][:, list(seen[1])] if stride > 1 else taps.flip(0, 1)
            found = rows @ chosen.reshape(-1, channels)
            if stride == 1:
                return found.view(batch, *sides, channels).permute(0, 3, 1, 2)
            part.copy_(found.view(part.shape))
    return out.permute(0, 3, 1, 2)


def weight_gradient(grad: Tensor, x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """(B, D, H', W') and (B, C, H, W) -> the gradient of the weight, (D, C, k, k), in channels-last."""
    rows, *_ = columns(x, kernel, stride, padding)
    above = grad.permute(0, 2, 3, 1).reshape(len(rows), -1).t()
    if grad.dtype == torch.bfloat16:
        above = above.contiguous()  # AMX has no product that reads it this way: 0.3 ms here save 2.2
    return (above @ rows).view(-1, kernel, kernel, x.shape[1]).permute(0, 3, 1, 2)


def columns(x: Tensor, kernel: int, stride: int, padding: int) -> tuple[Tensor, int, int]:
    """What each output pixel sees: (B, C, H, W) -> (B·H'·W', k·k·C), H' and W'."""
    height, width = ((side + 2 * padding - kernel) // stride + 1 for side in x.shape[2:])
    return _patches(x, (kernel, kernel), stride, (-padding, -padding), (height, width)), height, width


def _patches(x: Tensor, kernel: tuple[int, int], stride: int, start: Sequence[int], size: Sequence[int]) -> Tensor:
    """Patches of a map, which begins `start` pixels before or after its own first one, with zeros around it."""
    pixels = x.permute(0, 2, 3, 1)
    batch, *sides, channels = pixels.shape
    if kernel == (1, 1) and not any(start) and all((n - 1) * stride < side for n, side in zip(size, sides)):
        return pixels[:, ::stride, ::stride][:, : size[0], : size[1]].reshape(-1, channels)
    room = [(n - 1) * stride + k for n, k in zip(size, kernel)]
    if any(start) or room != sides or not pixels.is_contiguous():
        pixels = _window(pixels, start, room)
    one, row, pixel, _ = pixels.stride()
    run = kernel[1] * channels  # the pixels of a row of the kernel lie side by side
    seen = pixels.as_strided((batch, *size, kernel[0], run), (one, row * stride, pixel * stride, row, 1))
    return seen.reshape(-1, kernel[0] * run)


def _window(pixels: Tensor, start: Sequence[int], room: Sequence[int]) -> Tensor:
    """(B, H, W, C) -> a copy of the pixels from `start` on, `room` of them; those outside of the map are zeros."""
    batch, *sides, channels = pixels.shape
    out = pixels.new_empty(batch, *room, channels)
    (top, bottom), (left, right) = (
        (min(n, max(0, -first)), max(0, min(n, side - first))) for first, n, side in zip(start, room, sides)
    )
    out[:, :top], out[:, max(top, bottom) :] = 0, 0
    out[:, top:bottom, :left], out[:, top:bottom, max(left, right) :] = 0, 0
    out[:, top:bottom, left:right] = pixels[:, top + start[0] : bottom + start[0], left + start[1] : right + start[1]]
    return out


def _as_matrix(weight: Tensor) -> Tensor:
    """(D, C, k, k) -> (D, k·k·C): no copy of weights in channels-last."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)
