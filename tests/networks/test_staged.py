"""Every registered network: what a StagedNet promises."""

import pytest
import torch
from torch import nn

from sftn.errors import InputError
from sftn.networks import NETWORKS, build
from sftn.networks.families.wrn import wrn
from sftn.networks.staged import StagedNet

SMALL = ["resnet8", "resnet8x2", "wrn_10_1", "wrn_10_2", "vgg8", "shufflev1", "shufflev2", "mobilenetv2", "resnet18"]

# Of torchvision's networks with 1000 classes, as its documentation states them.
TORCHVISION = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}

# Of RepDistiller's networks with 100 classes that have no golden file: counted with its own code.
REPDISTILLER = {
    "resnet56": 861_620,
    "wrn_40_1": 569_780,
    "vgg11": 9_277_284,
    "shufflev1": 949_258,
    "resnet34": 21_328_292,
    "resnet50": 23_705_252,
}


def on_meta(name: str, classes: int = 7, channels: int = 3, image: tuple[int, int] = (32, 32)) -> StagedNet:
    """The network without memory for its weights: its forward computes shapes only."""
    with torch.device("meta"):
        return build(name, classes, channels, image)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture(params=SMALL)
def network(request: pytest.FixtureRequest) -> StagedNet:
    torch.manual_seed(0)
    return build(request.param, classes=7)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_takes_small_images(name: str) -> None:
    network = on_meta(name)
    assert network.name == name
    found, shapes = network.activations(torch.empty(2, 3, 32, 32, device="meta")), network.shapes((3, 32, 32))
    assert found.logits.shape == (2, 7)
    assert found.embedding.shape == (2, shapes.embedding)
    assert shapes.logits == 7
    assert len(found.features) == len(found.preacts) == len(network.stages)
    assert [tuple(feature.shape[1:]) for feature in found.features] == list(shapes.features)
    assert [preact.shape for preact in found.preacts] == [feature.shape for feature in found.features]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_takes_grey_images(name: str) -> None:
    assert on_meta(name, channels=1)(torch.empty(2, 1, 32, 32, device="meta")).shape == (2, 7)


@pytest.mark.parametrize("depth", TORCHVISION)
def test_imagenet_resnets_have_torchvisions_shape(depth: int) -> None:
    network = on_meta(f"imagenet_resnet{depth}", classes=1000)
    assert count(network) == TORCHVISION[depth]
    widths = [64, 128, 256, 512] if depth < 50 else [256, 512, 1024, 2048]
    assert network.shapes((3, 224, 224)).features == tuple((w, s, s) for w, s in zip(widths, (56, 28, 14, 7)))


@pytest.mark.parametrize("name", REPDISTILLER)
def test_parameters_are_as_many_as_the_benchmarks(name: str) -> None:
    assert count(on_meta(name, classes=100)) == REPDISTILLER[name]


def test_resnet8x2_doubles_the_stages_but_not_the_stem() -> None:
    network = on_meta("resnet8x2")
    assert network.stem.body[0].out_channels == 16
    assert network.shapes((3, 32, 32)).features == ((32, 32, 32), (64, 16, 16), (128, 8, 8))


def test_vgg_pools_before_its_last_stage_for_large_images_only() -> None:
    assert [shape[1] for shape in on_meta("vgg8").shapes((3, 32, 32)).features] == [16, 8, 4, 4]
    large = on_meta("vgg8", image=(64, 64))
    assert [shape[1] for shape in large.shapes((3, 64, 64)).features] == [32, 16, 8, 4]


def test_any_wrn_can_be_made() -> None:
    network = wrn(22, 4, classes=3)
    assert network.name == "wrn_22_4"
    assert [len(stage.blocks) for stage in network.stages] == [3, 3, 3]
    assert network.shapes((3, 16, 16)).features == ((64, 16, 16), (128, 8, 8), (256, 4, 4))
    with pytest.raises(InputError, match=r"depth must be 6n \+ 4"):
        wrn(17, 2, classes=3)


def test_forward_is_the_logits_of_activations(network: StagedNet) -> None:
    images = torch.randn(2, 3, 32, 32)
    network.eval()
    assert torch.equal(network(images), network.activations(images).logits)


def test_stages_can_be_run_by_hand_from_any_flow(network: StagedNet) -> None:
    network.eval()
    images = torch.randn(2, 3, 32, 32)
    flows = [network.stem(images).flow]
    for stage in network.stages:
        flows.append(stage(flows[-1]).flow)
    for start, flow in enumerate(flows):
        for stage in network.stages[start:]:
            flow = stage(flow).flow
        assert torch.equal(network.head(flow)[1], network(images))


def test_features_follow_from_preacts(network: StagedNet) -> None:
    found = network.eval().activations(torch.randn(2, 3, 32, 32))
    for stage, feature, preact in zip(network.stages, found.features, found.preacts):
        if network.name.startswith("wrn"):
            assert torch.equal(preact, stage.closing_norm(feature))
        elif network.name == "mobilenetv2":
            assert torch.equal(feature, preact)
        elif network.name == "shufflev2":  # shuffled: channels 0, C/2, 1, C/2 + 1, …
            half = preact.shape[1] // 2
            assert torch.equal(feature[:, ::2], preact[:, :half].relu())
            assert torch.equal(feature[:, 1::2], preact[:, half:].relu())
        else:
            assert torch.equal(feature, preact.relu())
            assert not torch.equal(feature, preact)


def test_closing_norms_are_as_wide_as_their_features(network: StagedNet) -> None:
    widths = [shape[0] for shape in network.shapes((3, 32, 32)).features]
    if network.name == "shufflev2":
        assert network.closing_norms == (None, None, None)
    else:
        assert [norm.num_features for norm in network.closing_norms if norm] == widths


def test_a_closing_norm_is_the_last_one_before_the_preact(network: StagedNet) -> None:
    """Moving its bias moves the preact by as much: nothing but a sum stands between them."""
    network.eval()
    images = torch.randn(1, 3, 32, 32)
    for k, norm in enumerate(network.closing_norms):
        if norm is not None:
            before = network.activations(images).preacts[k]
            with torch.no_grad():
                norm.bias += 1
                torch.testing.assert_close(network.activations(images).preacts[k], before + 1)
                norm.bias -= 1


def test_state_dict_names_nothing_twice(network: StagedNet) -> None:
    state = network.state_dict()
    assert len({value.data_ptr() for value in state.values()}) == len(state)


def test_asking_for_shapes_leaves_no_trace(network: StagedNet) -> None:
    network.train()
    network.stages[0].eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.shapes((3, 32, 32))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert network.training
    assert not network.stages[0].training


def test_gradient_reaches_every_parameter(network: StagedNet) -> None:
    network.train()
    network(torch.randn(4, 3, 32, 32)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert network.stem.body[0].weight.grad.abs().sum() > 0


def test_initial_weights_follow_the_benchmark() -> None:
    torch.manual_seed(0)
    for name in ("resnet32", "wrn_16_2", "vgg8", "mobilenetv2"):
        network = build(name, classes=100)
        for conv in (module for module in network.modules() if isinstance(module, nn.Conv2d)):
            if conv.weight.numel() > 5000:
                fan_out = conv.out_channels * conv.kernel_size[0] ** 2
                assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.06)
        if name in ("vgg8", "mobilenetv2"):
            assert network.head.linear.weight.std().item() == pytest.approx(0.01, rel=0.03)
        if name != "resnet32":
            assert not network.head.linear.bias.any()


def test_an_unknown_network_is_named_with_its_neighbours() -> None:
    with pytest.raises(InputError, match=r"unknown network 'resnet33': did you mean .*resnet3"):
        build("resnet33", classes=10)
    with pytest.raises(InputError, match="0 classes"):
        build("resnet8", classes=0)


def test_a_shuffle_does_the_same_in_both_memory_formats() -> None:
    from sftn.networks.families.shufflenet import Shuffle

    flow = torch.randn(2, 6, 3, 5)
    last = Shuffle(3)(flow.to(memory_format=torch.channels_last))
    assert torch.equal(last, Shuffle(3)(flow))
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(Shuffle(3)(flow)[0, :, 0, 0], flow[0, [0, 2, 4, 1, 3, 5], 0, 0])
