"""torchvision's networks as StagedNets; without torchvision, only how its absence is told."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sftn.errors import InputError
from sftn.networks import build
from sftn.networks.foreign.torchvision_import import imported
from sftn.networks.staged import StagedNet
from sftn.networks.weights import load_weights
from tests.support.foreign_checks import distil, make_friendly, same_training

ABSENT = importlib.util.find_spec("torchvision") is None
needs_torchvision = pytest.mark.skipif(ABSENT, reason="torchvision is not installed: pip install 'sftn[torchvision]'")

FAMILIES: dict[str, int] = {
    "alexnet": 64,
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "googlenet": 32,
    "inception_v3": 80,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_large": 32,
    "regnet_y_400mf": 32,
    "resnet50": 32,
    "resnext50_32x4d": 32,
    "swin_t": 32,
    "swin_v2_t": 32,
    "vgg11_bn": 32,
    "vit_b_32": 64,
}

QUICK = ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"]


def same(name: str, size: int = 32) -> StagedNet:
    image = (3, size, size)
    models: Any = imported("torchvision.models")
    options: dict[str, Any] = {"image_size": size} if name.startswith("vit") else {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": False}
    model = models.get_model(name, weights=None, num_classes=5, **options)
    nn.init.normal_([layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1].weight, std=0.1)
    network = build(f"torchvision:{name}", 5, 3, image)
    same_training(model, network, image)
    assert len(network.shapes(image).features) >= 3
    return network


@pytest.mark.skipif(not ABSENT, reason="torchvision is installed")
def test_absent_torchvision_is_told_with_the_remedy() -> None:
    with pytest.raises(InputError, match=r"pip install 'sftn\[torchvision\]'"):
        build("torchvision:resnet18", 10)


@needs_torchvision
@pytest.mark.parametrize("name", QUICK)
def test_stages_train_as_the_whole(name: str) -> None:
    assert same(name).name == f"torchvision:{name}"


@needs_torchvision
@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_trains_as_the_whole(name: str) -> None:
    same(name, FAMILIES[name])


@needs_torchvision
def test_resnets_equal_ours_in_taps_and_preacts(tmp_path: Path) -> None:
    models: Any = imported("torchvision.models")
    torch.save(models.resnet18(num_classes=5).state_dict(), tmp_path / "resnet18.pth")
    theirs, ours = build("torchvision:resnet18", 5, 3, (64, 64)), build("imagenet_resnet18", 5)
    for network in (theirs, ours):
        load_weights(network, tmp_path / "resnet18.pth")
    images = torch.randn(2, 3, 64, 64)
    for a, b in zip(theirs.eval().activations(images), ours.eval().activations(images)):
        torch.testing.assert_close(a, b)
    norms = zip(theirs.closing_norms, ours.closing_norms)
    assert all(a is not None and b is not None and torch.equal(a.weight, b.weight) for a, b in norms)


@needs_torchvision
@pytest.mark.parametrize("channels", [1, 5])
def test_other_channels_build(channels: int) -> None:
    network = build("torchvision:resnet18", 4, channels, (32, 32))
    assert network(torch.randn(2, channels, 32, 32)).shape == (2, 4)


@needs_torchvision
def test_pretrained_weights_fit_other_classes_and_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    models: Any = imported("torchvision.models")
    trained = models.resnet18()
    grey = trained.conv1.weight.detach().sum(1, keepdim=True)
    monkeypatch.setattr(models, "get_model", lambda name, weights: trained)
    network = build("torchvision:resnet18@pretrained", 7, 1, (32, 32))
    assert torch.equal(network.stem.model.conv1.weight, grey)
    assert network(torch.randn(2, 1, 32, 32)).shape == (2, 7)


@needs_torchvision
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", "torchvision network 'resnet19': did you mean resnet"),
        ("squeezenet1_0", "cannot be cut into stages"),
        ("alexnet", "cannot take images of 3×32×32"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        build(f"torchvision:{name}", 5)
    assert "\n" not in str(raised.value)


@needs_torchvision
@pytest.mark.slow
def test_pairs_train() -> None:
    image = (3, 32, 32)
    teacher, student = build("torchvision:resnet18", 5), build("torchvision:mobilenet_v3_small", 5)
    make_friendly(teacher, student, image)
    for method in ("kd", "fitnet", "oh"):
        distil(teacher, student, image, method)
