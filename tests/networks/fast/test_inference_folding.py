from __future__ import annotations

import copy
import importlib.util

import pytest
import torch
from torch import nn

from sftn.errors import InputError
from sftn.networks import build
from sftn.networks.fast.depthwise_grad import StridedDepthwise, use_strided_depthwise
from sftn.networks.fast.inference_folding import Convolution, folded
from sftn.networks.staged import Activations, StagedNet
from sftn.tasks.distillation import with_batch_statistics

IMAGE = (3, 32, 32)
FAMILIES = ("resnet8", "resnet8x4", "resnet18", "resnet50", "wrn_10_1", "wrn_16_2", "vgg8", "shufflev1", "shufflev2")
FAMILIES = (*FAMILIES, "mobilenetv2")


def trained(name: str) -> StagedNet:
    """A network whose batch norms have something to fold."""
    torch.manual_seed(0)
    network = build(name, 10)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return network.eval()


def tensors(activations: Activations) -> list[torch.Tensor]:
    return [activations.logits, activations.embedding, *activations.features, *activations.preacts]


@pytest.mark.parametrize("name", FAMILIES)
def test_activations_are_the_networks(name: str) -> None:
    network, images = trained(name), torch.randn(2, *IMAGE)
    before = copy.deepcopy(network.state_dict())
    quick = folded(network, IMAGE)
    with torch.no_grad():
        expected, found = network.activations(images), quick.activations(images)
        logits = quick(images.contiguous(memory_format=torch.channels_last))
    for theirs, ours in zip(tensors(expected), tensors(found)):
        assert (theirs - ours).abs().max() < 1e-5 * theirs.abs().max()
    torch.testing.assert_close(logits, expected.logits, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize(("name", "left"), [("resnet8x4", 0), ("vgg8", 0), ("resnet50", 0), ("wrn_16_2", 6)])
def test_only_norms_before_a_convolution_are_left(name: str, left: int) -> None:
    quick = folded(build(name, 10), IMAGE)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in quick.modules()) == left
    assert not any(parameter.requires_grad for parameter in quick.parameters())


@pytest.mark.parametrize("name", ["resnet8x4", "wrn_16_2", "vgg8"])
def test_bf16_features_are_nearer_to_float32_than_the_networks_are(name: str) -> None:
    network, images = trained(name), torch.randn(16, *IMAGE)
    with torch.no_grad():
        exact = network.activations(images)
        with torch.autocast("cpu", torch.bfloat16):
            usual, ours = (net.activations(images) for net in (network, folded(network, IMAGE, torch.bfloat16)))
    for true, theirs, quick in zip(*(net.features for net in (exact, usual, ours))):
        assert quick.dtype == torch.bfloat16
        assert (quick.float() - true).square().mean() < (theirs.float() - true).square().mean()
    assert (ours.logits.float() - exact.logits).abs().max() < 0.02 * exact.logits.abs().max()


def test_what_a_stage_was_given_stays_as_it_was() -> None:
    for name in ("resnet20", "wrn_16_1"):  # their first block adds its own input
        quick, flow = folded(trained(name), IMAGE), torch.randn(2, 16, 32, 32)
        before = flow.clone()
        with torch.no_grad():
            quick.stages[0](flow)
        assert torch.equal(flow, before)


def test_a_teacher_that_normalises_by_the_batch_is_refused() -> None:
    with pytest.raises(InputError, match="statistics"):
        folded(with_batch_statistics(build("resnet8", 10)), IMAGE)


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
def test_foreign_networks_are_folded_too() -> None:
    network, images = trained("timm:resnet18"), torch.randn(2, *IMAGE)
    quick = folded(network, IMAGE)
    assert sum(isinstance(module, Convolution) for module in quick.modules()) == 20
    with torch.no_grad():
        for theirs, ours in zip(tensors(network.activations(images)), tensors(quick.activations(images))):
            assert (theirs - ours).abs().max() < 1e-5 * theirs.abs().max()


def test_strided_depthwise_convolutions_compute_the_same() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6)
    quick = copy.deepcopy(conv)
    assert use_strided_depthwise(nn.Sequential(quick, nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 6, 3, stride=2))) == 1
    assert type(quick) is StridedDepthwise
    assert list(quick.state_dict()) == list(conv.state_dict())
    for enabled, tolerance in ((False, 0.0), (True, 2e-2)):
        images = torch.randn(4, 6, 9, 9)
        grads = []
        for module in (conv, quick):
            given = images.clone().requires_grad_()
            module.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                out = module(given)
            out.float().square().sum().backward()
            grads.append([out.float(), given.grad, module.weight.grad, module.bias.grad])
        for theirs, ours in zip(*grads):
            assert (theirs - ours).abs().max() <= tolerance * theirs.abs().max()
