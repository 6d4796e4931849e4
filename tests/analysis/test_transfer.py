"""The linear classifier against torch's own SGD, and what it must find."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sftn.analysis.transfer import Probe, features, linear_probe, transfer
from sftn.errors import InputError
from sftn.runtime.device import make_fabric
from tests.support import tiny

FABRIC = make_fabric("cpu", "float32")


def clouds(count: int, seed: int, classes: int = 3, width: int = 6) -> tuple[Tensor, Tensor]:
    """Classes around corners of a cube, well apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    return 4 * F.one_hot(labels, width) + torch.randn(count, width, generator=generator), labels


def reference(train: tuple[Tensor, Tensor], probe: Probe, classes: int) -> nn.Linear:
    """The same by autograd, `nn.Linear` and torch's SGD, from the same start and through the same batches."""
    generator = torch.Generator().manual_seed(probe.seed)
    width = train[0].shape[1]
    start = torch.empty(classes, width + 1).uniform_(-(width**-0.5), width**-0.5, generator=generator)
    linear = nn.Linear(width, classes)
    with torch.no_grad():
        linear.weight.copy_(start[:, :width])
        linear.bias.copy_(start[:, width])
    sgd = torch.optim.SGD(linear.parameters(), lr=probe.lr, momentum=probe.momentum)
    schedule = torch.optim.lr_scheduler.MultiStepLR(sgd, list(probe.milestones), probe.gamma)
    for _ in range(probe.epochs):
        for index in torch.randperm(len(train[0]), generator=generator).split(probe.batch):
            sgd.zero_grad()
            F.cross_entropy(linear(train[0][index]), train[1][index]).backward()
            sgd.step()
        schedule.step()
    return linear


def test_it_trains_as_torch_does() -> None:
    train, test = clouds(90, 0), clouds(400, 1)
    probe = Probe(epochs=7, milestones=(3, 5), batch=16, seed=4)
    found = linear_probe(train, test, 3, probe)
    linear = reference(train, probe, 3)
    for name, (x, labels) in (("train_accuracy", train), ("accuracy", test)):
        assert found[name] == pytest.approx(100 * (linear(x).argmax(1) == labels).double().mean().item(), abs=0.3)
    assert found["accuracy"] > 95
    assert found["best_accuracy"] >= found["accuracy"]


def test_the_same_seed_gives_the_same_and_another_another() -> None:
    train, test = (torch.randn(80, 6), torch.arange(80) % 3), (torch.randn(500, 6), torch.arange(500) % 3)
    one, again, other = (linear_probe(train, test, 3, Probe(epochs=2, seed=seed)) for seed in (0, 0, 1))
    assert one == again
    assert one != other


def test_features_are_the_last_stage_pooled_in_order_whatever_the_batch() -> None:
    data, network = tiny.dataset(), tiny.network()
    found = features(network, data.train, data.normalisation, FABRIC)
    mean, std = data.normalisation
    images = (data.train.images.float() - mean[:, None, None]) / std[:, None, None]
    expected = network.eval().activations(images).features[-1].mean((2, 3))
    assert (found.dtype, found.requires_grad) == (torch.float32, False)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found, features(network, data.train, data.normalisation, FABRIC, batch=5))


def test_a_network_is_not_changed_and_its_classes_do_not_matter() -> None:
    data, network = tiny.dataset(), tiny.network(classes=9)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    probe = Probe(epochs=3, batch=8)
    found = transfer(network, data, FABRIC, probe)
    sides = [(features(network, split, data.normalisation, FABRIC), split.labels) for split in (data.train, data.test)]
    assert found == linear_probe(sides[0], sides[1], tiny.CLASSES, probe) | {"features": 8}
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_wrong_input() -> None:
    data = tiny.dataset()
    with pytest.raises(InputError, match="of 1 channels and tiny has 3"):
        transfer(tiny.network(channels=1), data, FABRIC)
    with pytest.raises(InputError, match="labels are 0 to 3"):
        linear_probe((torch.randn(8, 2), torch.arange(8) % 4), (torch.randn(8, 2), torch.arange(8) % 3), 3)
    with pytest.raises(InputError, match="epochs is 0"):
        Probe(epochs=0)
