"""Plain modules as StagedNets."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sftn.errors import InputError
from sftn.networks import build, check_name
from sftn.networks.foreign.cut import assemble, staged
from sftn.networks.foreign.layout import Layout
from sftn.networks.foreign.parts import Call, Part
from sftn.networks.staged import StagedNet
from sftn.networks.weights import load_weights, save_weights
from sftn.tasks.student_branches import StudentBranches
from tests.support import tiny
from tests.support.foreign_checks import distil, make_friendly, same_training
from tests.support.pages import code, example

IMAGE = (3, 8, 8)


class Block(nn.Module):
    """torchvision's way: one in-place ReLU, used twice."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def body(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))

    def forward(self, x: Tensor) -> Tensor:
        out = self.body(x)
        out += self.shortcut(x)
        return self.relu(out)


class Functional(Block):
    """CIFAR repositories' way, with the shortcut first."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.body(x))


class Linear(Block):
    """No closing activation."""

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


class Wavering(Block):
    """Its forward depends on the mode, so that it cannot be read."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x)) if self.training else F.relu(self.body(x) + 0)


class Net(nn.Module):
    def __init__(self, block: type[Block] = Block, classes: int = 5) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.2)
        self.layers = nn.ModuleList(
            nn.Sequential(Block(w, 2 * w, stride), block(2 * w, 2 * w, 1)) for w, stride in ((4, 1), (8, 2), (16, 2))
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Linear(32, 12), nn.ReLU(), nn.Linear(12, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(F.relu(self.norm(self.conv(x))))
        for layer in self.layers:
            x = layer(x)
        return self.classifier(self.pool(x).flatten(1))


LAYERS = ["layers.0", "layers.1", "layers.2"]


def cut(net: nn.Module | None = None, **changes: object) -> StagedNet:
    parts = {"stem": ["conv", "norm", F.relu, "drop"], "stages": LAYERS, "head": ["pool", "classifier"]} | changes
    return staged(Net() if net is None else net, IMAGE, **parts)  # type: ignore[arg-type]


@pytest.mark.parametrize("block", [Block, Functional, Linear, Wavering])
def test_parts_train_as_the_whole(block: type[Block]) -> None:
    same_training(Net(block), cut(Net(block)), IMAGE)


@pytest.mark.parametrize(("block", "closes"), [(Block, True), (Functional, True), (Linear, False), (Wavering, False)])
def test_closing_activation_is_applied_apart_where_it_can_be(block: type[Block], closes: bool) -> None:
    net = Net(block)
    network = cut(net)
    found = network.eval().activations(torch.randn(2, *IMAGE))
    for feature, preact, norm, layer in zip(found.features, found.preacts, network.closing_norms, net.layers):
        assert torch.equal(feature, preact.relu() if closes else preact)
        assert not closes or preact.min() < 0
        assert norm is (layer[-1].bn2 if closes else None)


def test_embedding_enters_the_last_linear_layer() -> None:
    net = Net()
    found = cut(net).eval().activations(torch.randn(2, *IMAGE))
    assert found.embedding.shape == (2, 12)
    assert torch.equal(net.classifier[2](found.embedding), found.logits)


def test_modules_and_functions_serve_as_steps() -> None:
    net = Net()
    network = cut(
        net,
        stem=[net.conv, net.norm, nn.ReLU(), net.drop],
        stages=[[net.layers[0], nn.Identity()], net.layers[1], net.layers[2]],
        head=[lambda maps: F.adaptive_avg_pool2d(maps, 1), net.classifier],
    )
    assert torch.equal(network.eval()(torch.ones(1, *IMAGE)), net.eval()(torch.ones(1, *IMAGE)))


def test_a_copy_is_independent_of_the_module() -> None:
    network = cut()
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert twin(torch.randn(2, *IMAGE)).std() > 0
    assert network.eval()(torch.randn(2, *IMAGE)).std() == 0


def test_modes_and_random_numbers_are_left_alone() -> None:
    net = Net()
    net.drop.eval()
    state = torch.get_rng_state()
    network = cut(net)
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert not net.drop.training
    assert network.training


class Late(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 1.0001


class InPlace(Net):
    def __init__(self) -> None:
        super().__init__(Linear)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers[0](self.drop(F.relu(self.norm(self.conv(x)))))
        return self.classifier(self.pool(self.layers[2](self.layers[1](self.act(x)))).flatten(1))


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: cut(stages=["layer.0", *LAYERS[1:]]), r"submodule of Net 'layer.0': did you mean layers.0"),
    (lambda: cut(stages=LAYERS[:2]), r"weights in no part \(layers.2.0.conv1.weight"),
    (lambda: cut(stages=["layers.0", *LAYERS]), r"weights in two parts \(layers.0.0"),
    (lambda: cut(stages=[]), "no stages"),
    (lambda: cut(head=[]), "no head"),
    (lambda: cut(stages=LAYERS[::-1]), "cannot be run in parts"),
    (lambda: cut(stem=["conv", "norm", "drop"]), "does not give the logits of the whole"),
    (lambda: cut(stem=["conv", nn.BatchNorm2d(4), F.relu, "norm", "drop"]), "not its own"),
    (lambda: cut(Late()), "does not give the logits of the whole"),
    (
        lambda: cut(InPlace(), stages=["layers.0", ["act", "layers.1"], "layers.2"]),
        "after stage 1 .* changes that stage",
    ),
    (lambda: cut(stem=Net().forward), "Net.forward is a method of a module"),
    (lambda: staged(Linear(3, 4, 1), (1, 8, 8), stem=[], stages=["conv1"], head=["bn1"]), "weights in no part"),
    (lambda: staged(nn.Conv2d(3, 4, 1), (1, 8, 8), stem=[], stages=[], head=[]), "conv2d has no stages"),
    (lambda: build("tim:resnet18", 5), "source of networks 'tim': did you mean timm"),
    (lambda: check_name("resnet8:timm"), "source of networks 'resnet8'"),
]


@pytest.mark.parametrize(("wrong", "message"), REFUSED)
def test_wrong_cuts_are_refused_in_one_line(wrong: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        wrong()
    assert "\n" not in str(raised.value)


def test_weights_under_the_modules_own_names_load(tmp_path: Path) -> None:
    net, network = Net(), cut()
    torch.save({"state_dict": net.state_dict()}, tmp_path / "plain.pth")
    load_weights(network, tmp_path / "plain.pth")
    assert torch.equal(network.eval()(torch.ones(1, *IMAGE)), net.eval()(torch.ones(1, *IMAGE)))
    save_weights(network, tmp_path / "staged.safetensors")
    again = cut()
    load_weights(again, tmp_path / "staged.safetensors")
    assert torch.equal(again.eval()(torch.ones(1, *IMAGE)), net.eval()(torch.ones(1, *IMAGE)))
    with pytest.raises(InputError, match="has 5 classes, not 7"):
        load_weights(cut(Net(classes=7)), tmp_path / "plain.pth")


@pytest.mark.parametrize("method", ["kd", "fitnet", "ab", "oh"])
def test_foreign_and_own_networks_teach_each_other(method: str) -> None:
    ours = tiny.network((4, 6), classes=5)
    distil(cut(), ours, IMAGE, method)
    distil(ours, cut(), IMAGE, method)


def test_branches_grow_both_ways() -> None:
    make_friendly(cut(), tiny.network((4, 6), classes=5), IMAGE)
    make_friendly(tiny.network((4, 6), classes=5), cut(), IMAGE)


def test_oh_refuses_stages_without_closing_norm() -> None:
    with pytest.raises(InputError, match="closes without one"):
        distil(cut(Net(Linear)), cut(), IMAGE, "oh")


class Tokens(nn.Module):
    """A transformer's skeleton: patches as tokens, with a class token in front or without."""

    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.prefix = nn.Parameter(torch.randn(1, prefix, 6))
        self.patch = nn.Conv2d(3, 6, 2, 2)
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 6)) for _ in range(3)))
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 5)

    def embed(self, images: Tensor) -> Tensor:
        return torch.cat([self.prefix.expand(len(images), -1, -1), self.patch(images).flatten(2).mT], 1)

    def pooled(self, tokens: Tensor) -> Tensor:
        return self.norm(tokens).mean(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pooled(self.blocks(self.embed(images))))


def tokens(prefix: int) -> StagedNet:
    return assemble(
        Tokens(prefix),
        "tokens",
        stem=Part((Call("embed"),), ("prefix", "patch")),
        stages=[Part((f"blocks.{k}",)) for k in range(3)],
        head=Part((Call("pooled"),), ("norm",)),
        classifier="head",
        layouts=[Layout("tokens", prefix, (4, 4))] * 4,
        verify_with=IMAGE,
    )


@pytest.mark.parametrize("prefix", [0, 1])
def test_tokens_are_shown_as_maps(prefix: int) -> None:
    same_training(Tokens(prefix), tokens(prefix), IMAGE)
    network = tokens(prefix)
    shapes = network.shapes(IMAGE)
    assert shapes.features == ((6, 4, 4),) * 3
    assert shapes.flows == ((None,) * 3 if prefix else ((6, 4, 4),) * 3)
    images = torch.randn(2, *IMAGE)
    assert torch.equal(network.stem(images).feature, network.stem.model.patch(images))
    distil(network, tiny.network((4, 6), classes=5), IMAGE, "fitnet")
    distil(tiny.network((4, 6), classes=5), network, IMAGE, "fitnet")
    make_friendly(network, tiny.network((4, 6), classes=5), IMAGE)


def test_no_branch_grows_into_a_class_token() -> None:
    with pytest.raises(InputError, match="no branch can be grown for tokens: it has a class token"):
        StudentBranches(tiny.network((4, 6), classes=5), lambda: tokens(1), IMAGE)
    make_friendly(tiny.network((4, 6), classes=5), tokens(0), IMAGE)


def test_own_models_page_runs() -> None:
    names: dict[str, object] = {}
    exec(code("docs/own-models.md"), names)
    from sftn.networks import NETWORKS

    assert isinstance(NETWORKS.pop("mine")(4), StagedNet)  # type: ignore[arg-type]


def test_own_network_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    example("own_network").main(epochs=1, limit=40)
    assert "epoch 1: loss" in capsys.readouterr().out
