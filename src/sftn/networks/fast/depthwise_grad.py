"""Strided depthwise convolutions in half precision on a CPU, whose gradient oneDNN computes by a slow reference."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def use_strided_depthwise(network: nn.Module) -> int:
    """Let strided depthwise convolutions take the gradient of their input in float32 where autocast makes them bf16.

    In bf16, with a stride, oneDNN has no fast kernel for it: 37 ms for 64 images of 58×32×32, in float32 half a
    millisecond (oneDNN of torch 2.13, one thread with AVX512). A step of shufflev2 or mobilenetv2 takes 1.7 times as
    long for it. The gradient is rounded to bf16 once, as before; on other devices and in float32 nothing changes.

    Args:
        network: changed in place; its parameters and their names stay.

    Returns:
        How many convolutions were changed.
    """
    found = [
        m for m in network.modules() if type(m) is nn.Conv2d and 1 < m.groups == m.in_channels and max(m.stride) > 1
    ]
    found = [conv for conv in found if conv.padding_mode == "zeros" and not isinstance(conv.padding, str)]
    for conv in found:
        conv.__class__ = StridedDepthwise  # keeps parameters, names and hooks
    return len(found)


class StridedDepthwise(nn.Conv2d):
    """A convolution that differs from `nn.Conv2d` only in how bf16's gradient is computed on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, H', W')."""
        half = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        if x.device.type != "cpu" or half != torch.bfloat16:
            return super().forward(x)
        bias = None if self.bias is None else self.bias.to(half)
        how = (self.stride, self.padding, self.dilation, self.groups)
        out: Tensor = _Conv.apply(x.to(half), self.weight.to(half), bias, how)
        return out


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = how
        return F.conv2d(x, weight, bias, *how)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, weight) = grads, ctx.saved_tensors
        stride, padding, dilation, groups = ctx.how
        sizes = [weight.shape[0]] if ctx.needs_input_grad[2] else None
        how = (sizes, stride, padding, dilation, False, [0, 0], groups)
        backward = torch.ops.aten.convolution_backward
        below, rest = None, [False, *ctx.needs_input_grad[1:3]]
        if ctx.needs_input_grad[0]:
            below = backward(grad.float(), x.float(), weight.float(), *how, [True, False, False])[0].to(x.dtype)
        of_weight, of_bias = backward(grad, x, weight, *how, rest)[1:] if any(rest) else (None, None)
        return below, of_weight, of_bias, None
