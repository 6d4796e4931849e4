"""timm's networks as StagedNets; without timm, only how its absence is told."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from sftn.cli import main
from sftn.errors import InputError
from sftn.networks import build, check_name
from sftn.networks.foreign.torchvision_import import imported
from sftn.networks.staged import StagedNet
from sftn.networks.weights import load_weights
from tests.support.foreign_checks import distil, make_friendly, same_training

ABSENT = importlib.util.find_spec("timm") is None
needs_timm = pytest.mark.skipif(ABSENT, reason="timm is not installed: pip install 'sftn[timm]'")

FAMILIES = {
    "resnet10t": 32,
    "seresnet18": 32,
    "wide_resnet50_2": 32,
    "resnetv2_50": 32,
    "resnext26ts": 32,
    "regnetx_002": 32,
    "regnety_002": 32,
    "convnext_atto": 32,
    "convmixer_768_32": 32,
    "efficientvit_m0": 64,
    "convnextv2_atto": 32,
    "mobilenetv2_035": 32,
    "mobilenetv4_conv_small": 32,
    "efficientnet_lite0": 32,
    "efficientnet_b0": 32,
    "tf_efficientnetv2_b0": 32,
    "densenet121": 32,
    "dla34": 32,
    "dpn48b": 32,
    "vgg11_bn": 32,
    "rexnet_100": 32,
    "ghostnet_050": 32,
    "mixnet_s": 32,
    "repvgg_a0": 32,
    "lcnet_050": 32,
    "cspresnet50": 32,
    "inception_v3": 96,
    "fastvit_t8": 32,
    "pvt_v2_b0": 32,
    "poolformer_s12": 32,
    "maxvit_rmlp_pico_rw_256": 32,
    "swin_tiny_patch4_window7_224": 32,
    "swinv2_tiny_window8_256": 32,
    "deit_tiny_patch16_224": 32,
    "beit_base_patch16_224": 32,
    "vit_base_patch16_siglip_gap_224": 32,
    "mixer_s32_224": 64,
}
"""A sample of what can be cut, and the height and width that it is tried with."""

QUICK = ["resnet10t", "mobilenetv3_small_050", "vit_tiny_patch16_224"]

PAIRS = [
    ("resnet26", "mobilenetv3_small_050"),
    ("resnext26ts", "resnet10t"),
    ("regnetx_002", "efficientnet_lite0"),
    ("convnext_atto", "regnetx_002"),
    ("densenet121", "ghostnet_050"),
    ("vgg11_bn", "mobilenetv2_035"),
    ("swin_tiny_patch4_window7_224", "convnext_atto"),
    ("mobilenetv3_small_050", "swin_tiny_patch4_window7_224"),
    ("vit_tiny_patch16_224", "resnet10t"),
]


def original(name: str, classes: int, image: tuple[int, int, int]) -> nn.Module:
    timm = imported("timm")
    sized = {"img_size": image[1:]} if timm.get_pretrained_cfg(name).fixed_input_size else {}
    model: nn.Module = timm.create_model(name, num_classes=classes, in_chans=image[0], **sized)
    return model


def same(name: str, size: int = 32, channels: int = 3) -> StagedNet:
    image = (channels, size, size)
    network = build(f"timm:{name}", 5, channels, image)
    same_training(original(name, 5, image), network, image)
    shapes = network.shapes(image)
    assert shapes.logits == 5
    assert len(shapes.features) in (3, 4, 5)
    return network


@pytest.mark.skipif(not ABSENT, reason="timm is installed")
def test_absent_timm_is_told_with_the_remedy() -> None:
    with pytest.raises(InputError, match=r"pip install 'sftn\[timm\]'"):
        build("timm:resnet26", 10)


@needs_timm
@pytest.mark.parametrize("name", QUICK)
def test_stages_train_as_the_whole(name: str) -> None:
    network = same(name, channels=1)
    assert network.name == f"timm:{name}"


@needs_timm
@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_trains_as_the_whole(name: str) -> None:
    same(name, FAMILIES[name])


@needs_timm
def test_many_channels_build() -> None:
    network = build("timm:resnet10t", 3, 8, (48, 32))
    assert network.shapes((8, 48, 32)).features == ((64, 12, 8), (128, 6, 4), (256, 3, 2), (512, 2, 1))


@needs_timm
def test_residual_stages_show_their_preacts() -> None:
    network = build("timm:resnet10t", 5)
    found = network.eval().activations(torch.randn(2, 3, 32, 32))
    assert all(torch.equal(f, p.relu()) for f, p in zip(found.features, found.preacts))
    assert found.preacts[-1].min() < 0
    assert all(isinstance(norm, nn.BatchNorm2d) for norm in network.closing_norms)


@needs_timm
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet27", "timm network 'resnet27': did you mean resnet"),
        ("timm:hrnet_w18_small", "cannot be cut"),
        ("timm:cait_xxs24_224", "cannot be run in parts"),
        ("timm:deit_tiny_distilled_patch16_224", "cannot be cut"),
        ("timm:inception_v3", "images of 3×32×32 .*give larger ones"),
        ("timm:resnet10t.nobody", "names weights that timm does not have: leave out nobody"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        build(name, 5)
    assert "\n" not in str(raised.value)


@needs_timm
def test_pretrained_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = imported("timm")
    check_name("timm:resnet26@pretrained")

    def offline(*args: object, pretrained: bool, **kwargs: object) -> nn.Module:
        raise OSError(f"no route to the hub\n(pretrained={pretrained})")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(InputError, match=r"could not be loaded \(no route to the hub\): check the connection"):
        build("timm:resnet26@pretrained", 5)
    with pytest.raises(InputError, match="timm has no weights for timm:lcnet_035"):
        build("timm:lcnet_035@pretrained", 5)


@needs_timm
def test_timms_own_state_dict_loads(tmp_path: Path) -> None:
    model = original("mobilenetv3_small_050", 5, (3, 32, 32))
    torch.save(model.state_dict(), tmp_path / "timm.pth")
    network = build("timm:mobilenetv3_small_050", 5)
    load_weights(network, tmp_path / "timm.pth")
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(network.eval()(images), model.eval()(images))


@needs_timm
def test_nothing_grows_into_a_vit_but_it_learns() -> None:
    image = (3, 32, 32)
    vit, resnet = build("timm:vit_tiny_patch16_224", 5), build("timm:resnet10t", 5)
    with pytest.raises(InputError, match="no branch can be grown for timm:vit_tiny"):
        make_friendly(resnet, vit, image)
    distil(resnet, vit, image, "fitnet")


@needs_timm
@pytest.mark.slow
@pytest.mark.parametrize(("teacher", "student"), PAIRS)
def test_pairs_train(teacher: str, student: str) -> None:
    image = (3, 32, 32)
    big, small = build(f"timm:{teacher}", 5), build(f"timm:{student}", 5)
    make_friendly(big, small, image)
    distil(big, small, image, "kd")
    distil(big, small, image, "fitnet")
    distil(big, small, image, "ab")
    if None in big.closing_norms:
        with pytest.raises(InputError, match="closes without one"):
            distil(big, small, image, "oh")
    else:
        distil(big, small, image, "oh")


@needs_timm
@pytest.mark.slow
def test_commands_take_timms_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = ["--teacher", "timm:resnet26", "--student", "timm:mobilenetv3_small_050"]
    few = ["--data", "digits", "--epochs", "1", "--limit", "100", "--seeds", "1"]
    main(["compare", *pair, *few, "--out", str(tmp_path)])
    main(["describe", "timm:resnet26", *pair[2:]])
    shown = capsys.readouterr().out
    assert "timm:mobilenetv3_small_050-kd-from-timm:resnet26-for-timm:mobilenetv3_small_050" in shown
    assert "A training step of timm:resnet26 with the branches takes" in shown
    assert len(list(tmp_path.glob("*/result.json"))) == 5
