"""Faster gradients of strided depthwise convolutions on a CPU in half precision, for which oneDNN is slow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def use_strided_depthwise(network: nn.Module) -> int:
    """Make strided depthwise convolutions compute their input's gradient in float32 where autocast uses bf16.

    In bf16 with a stride, oneDNN has no fast kernel for it: 37 ms for 64 images of 58×32×32, against half a millisecond
    in float32 (oneDNN of torch 2.13, one thread with AVX512), which makes a step of shufflev2 or mobilenetv2 1.7 times
    as long. The gradient is rounded to bf16 once, as before; on other devices and in float32 nothing changes.

    Args:
        network: changed in place; its parameters and their names stay.

    Returns:
        Number of convolutions that were changed.
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
        """Compute the convolution: (B, C, H, W) -> (B, D, H', W')."""
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
