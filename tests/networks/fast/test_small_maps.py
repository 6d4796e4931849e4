from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sftn.networks.fast.small_maps import PASSES, convolution, inferred

SHAPES = [
    (kernel, stride, padding, height, width, batch)
    for kernel, stride, padding in [
        (3, 1, 1),
        (3, 2, 1),
        (3, 1, 0),
        (3, 2, 0),
        (3, 1, 2),
        (3, 2, 2),
        (1, 1, 0),
        (1, 2, 0),
    ]
    for height, width in [(4, 4), (5, 7), (3, 8), (1, 1), (2, 1)]
    for batch in (1, 3)
    if min(height, width) + 2 * padding >= kernel
]


def both(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, passes: str = PASSES
) -> list[list[Tensor]]:
    """Output and gradients, of the convolution and of ours."""
    found = []
    for ours in (False, True):
        given = [None if t is None else t.detach().requires_grad_() for t in (x, weight, bias)]
        one, two, three = given
        assert one is not None
        assert two is not None
        out = convolution(one, two, three, stride, padding, passes) if ours else F.conv2d(*given, stride, padding)  # type: ignore[arg-type]
        draws = torch.Generator().manual_seed(1)
        out.backward(torch.randn(out.shape, generator=draws).bfloat16().to(out))  # the same numbers in any precision
        grads = [t.grad for t in given if t is not None]
        found.append([out.detach(), *(grad for grad in grads if grad is not None)])
    return found


@pytest.mark.parametrize(("kernel", "stride", "padding", "height", "width", "batch"), SHAPES)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_every_pass_is_that_of_a_convolution(kernel, stride, padding, height, width, batch, layout):
    x = torch.randn(batch, 5, height, width, dtype=torch.float64).contiguous(memory_format=layout)
    weight = torch.randn(6, 5, kernel, kernel, dtype=torch.float64).contiguous(memory_format=layout)
    bias = torch.randn(6, dtype=torch.float64)
    theirs, ours = both(x, weight, bias, stride, padding)
    assert len(ours) == 4
    for one, other in zip(theirs, ours):
        assert one.shape == other.shape
        torch.testing.assert_close(other, one, rtol=0, atol=1e-10)


@pytest.mark.parametrize("passes", ["".join(some) for n in range(4) for some in itertools.combinations(PASSES, n)])
def test_passes_that_are_no_products_are_the_convolutions_own(passes):
    x, weight = torch.randn(2, 4, 4, 4, dtype=torch.float64), torch.randn(3, 4, 3, 3, dtype=torch.float64)
    theirs, ours = both(x, weight, torch.randn(3, dtype=torch.float64), 1, 1, passes)
    for one, other in zip(theirs, ours):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-10)
    theirs, ours = both(x, weight, None, 1, 1, passes)
    assert len(ours) == 3


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (1, 1, 0), (1, 2, 0)])
def test_gradients_by_differences(kernel, stride, padding):
    x = torch.randn(2, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2, kernel, kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *given: convolution(*given, stride, padding), (x, weight, bias))


@pytest.mark.parametrize("view", ["sliced", "flipped", "expanded", "transposed"])
def test_inputs_that_do_not_lie_in_order(view):
    base = torch.randn(4, 6, 8, 8, dtype=torch.float64)
    x = {
        "sliced": lambda: base.contiguous(memory_format=torch.channels_last)[::2, 1:5, ::2, 1:7],
        "flipped": lambda: base.transpose(2, 3),
        "expanded": lambda: base[:, :1].expand(-1, 4, -1, -1),
        "transposed": lambda: base.transpose(0, 1),
    }[view]()
    weight = torch.randn(3, x.shape[1], 3, 3, dtype=torch.float64).transpose(2, 3)
    for one, other in zip(*both(x, weight, None, 1, 1)):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("kernel", "stride", "side"), [(3, 1, 4), (3, 2, 8), (1, 1, 4), (1, 2, 5)])
def test_bf16_is_rounded_once(kernel, stride, side):
    x = torch.randn(8, 64, side, side).bfloat16().contiguous(memory_format=torch.channels_last)
    weight = (torch.randn(48, 64, kernel, kernel) / (64 * kernel**2) ** 0.5).bfloat16()
    _, ours = both(x, weight, None, stride, kernel // 2)
    exact, _ = both(x.double(), weight.double(), None, stride, kernel // 2)
    for one, other in zip(ours, exact):
        assert one.dtype == torch.bfloat16
        # 8 bits: half of the last one is 2⁻⁹ of a value between powers of two; the sum itself is in float32.
        assert ((one.double() - other).abs() <= 2**-8 * other.abs() + 1e-4 * other.abs().max()).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("after", ["none", "relu"])
def test_an_answer_does_not_depend_on_the_others_in_the_batch(dtype, after):
    x = torch.randn(64, 256, 4, 4).to(dtype).contiguous(memory_format=torch.channels_last)
    weight, bias = (torch.randn(512, 256, 3, 3) / 48).to(dtype), torch.randn(512).to(dtype)
    whole = inferred(x, weight, bias, 1, 1, (after, [], ""))
    assert whole.is_contiguous(memory_format=torch.channels_last)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), 1, 1)
    exact = exact.relu() if after == "relu" else exact
    assert (whole.double() - exact).abs().max() <= (2**-8 if dtype == torch.bfloat16 else 1e-5) * exact.abs().max()
    for count in (1, 16, 20, 40):
        assert torch.equal(inferred(x[:count], weight, bias, 1, 1, (after, [], "")), whole[:count])
