from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sftn.networks.fast import winograd
from sftn.networks.fast.inference_folding import Convolution
from sftn.networks.fast.product_choices import Choices, Table
from sftn.networks.fast.small_maps import convolution


@pytest.mark.parametrize(("height", "width", "batch"), [(4, 4, 1), (4, 4, 3), (8, 4, 2), (8, 12, 1), (16, 16, 2)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 4e-5)])
def test_every_pass_is_that_of_a_convolution(height, width, batch, layout, dtype, tolerance):
    draws = [torch.randn(batch, 5, height, width), torch.randn(6, 5, 3, 3), torch.randn(6)]
    above, outcomes = torch.randn(batch, 6, height, width), []
    for passes, kind in (("", torch.float64), ("FIW", dtype)):
        x, weight, bias = (one.to(kind) for one in draws)
        given = [x.contiguous(memory_format=layout), weight.contiguous(memory_format=layout), bias]
        for one in given:
            one.requires_grad_()
        out = convolution(*given, 1, 1, passes) if passes else F.conv2d(*given, 1, 1)
        out.backward(above.to(kind))
        outcomes.append([out.detach(), *(one.grad for one in given)])
    for exact, ours in zip(*outcomes):
        assert ours.dtype == dtype
        assert (ours - exact).abs().max() <= tolerance * exact.abs().max()


def test_gradients_by_differences():
    given = [torch.randn(1, 2, 4, 4), torch.randn(2, 2, 3, 3), torch.randn(2)]
    given = [one.double().requires_grad_() for one in given]
    assert torch.autograd.gradcheck(lambda *them: convolution(*them, 1, 1, "FIW"), given)


def test_which_convolutions_fit():
    assert winograd.fits(4, 8, 3, 1, 1)
    others = [(4, 6, 3, 1, 1), (2, 4, 3, 1, 1), (4, 4, 1, 1, 0), (8, 8, 3, 2, 1), (6, 6, 3, 1, 0)]
    assert not any(winograd.fits(*one) for one in others)


@pytest.mark.parametrize("count", [16, 20, 40])
def test_an_answer_does_not_depend_on_the_others_in_the_batch(count):
    x = torch.randn(64, 128, 4, 4).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(128, 128, 3, 3), torch.randn(128)
    assert torch.equal(winograd.convolved(x[:count], weight, bias), winograd.convolved(x, weight, bias)[:count])


@pytest.mark.parametrize("relu", [False, True])
def test_a_folded_convolution_chooses_it(relu):
    conv = torch.nn.Conv2d(32, 40, 3, padding=1)
    choices = Choices(Table("here", None, lambda layer: "F"))
    ours, usual = Convolution(conv, None, relu, choices), Convolution(conv, None, relu)
    x, onto = torch.randn(2, 32, 8, 8).contiguous(memory_format=torch.channels_last), torch.randn(2, 40, 8, 8)
    onto = onto.contiguous(memory_format=torch.channels_last)
    assert not torch.equal(ours(x), usual(x))
    torch.testing.assert_close(ours(x), usual(x), rtol=1e-4, atol=1e-4)
    for spoil in (False, True):
        kept = onto.clone(memory_format=torch.preserve_format)
        torch.testing.assert_close(
            ours.add(x, kept, spoil=spoil), usual.add(x, onto, spoil=False), rtol=1e-4, atol=1e-4
        )
        if not spoil:
            assert torch.equal(kept, onto)
