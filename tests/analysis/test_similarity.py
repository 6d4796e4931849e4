"""KL, CKA and agreement against implementations from their definitions, through Gram matrices."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from sftn.analysis.similarity import CKA, MinibatchCKA, similarity, unbiased_hsic
from sftn.data.dataset import Split
from sftn.errors import InputError
from sftn.runtime.device import make_fabric
from tests.support import tiny


def gram_cka(x: np.ndarray, y: np.ndarray) -> float:
    """tr(KHLH) / √(tr(KHKH) tr(LHLH)), K = XXᵀ, L = YYᵀ, H the centring matrix."""
    n = len(x)
    centring = np.eye(n) - np.ones((n, n)) / n
    k, m = (centring @ (part @ part.T) @ centring for part in (x, y))
    return float(np.trace(k @ m) / math.sqrt(np.trace(k @ k) * np.trace(m @ m)))


def slow_hsic(k: np.ndarray, m: np.ndarray) -> float:
    """HSIC₁ with every sum over distinct indices written out (Song et al., the U-statistic)."""
    n = len(k)
    two = three = four = 0.0
    for i in range(n):
        for j in range(n):
            for q in range(n):
                for r in range(n):
                    if len({i, j}) == 2 and q == i and r == j:
                        two += k[i, j] * m[i, j]
                    if len({i, j, r}) == 3 and q == i:
                        three += k[i, j] * m[i, r]
                    if len({i, j, q, r}) == 4:
                        four += k[i, j] * m[q, r]
    pairs, triples = n * (n - 1), n * (n - 1) * (n - 2)
    return two / pairs - 2 * three / triples + four / (triples * (n - 3))


def features(count: int, *widths: int, offset: float = 0.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    base = torch.randn(count, 5, generator=generator)
    return [
        offset + base @ torch.randn(5, w, generator=generator) + torch.randn(count, w, generator=generator)
        for w in widths
    ]


@pytest.mark.parametrize("offset", [0.0, 300.0])
@pytest.mark.parametrize("batch", [1, 7, 60])
def test_exact_cka_equals_the_gram_matrices(batch: int, offset: float) -> None:
    x, y = features(60, 12, 20, offset=offset)
    found = CKA()
    for a, b in zip(x.split(batch), y.split(batch)):
        found.add(a, b)
    assert found.value() == pytest.approx(gram_cka(x.double().numpy(), y.double().numpy()), abs=1e-6)


def test_unbiased_hsic_is_the_u_statistic() -> None:
    x, y = features(9, 3, 4)
    k, m = (part.double() @ part.double().T for part in (x, y))
    assert float(unbiased_hsic(k, m)) == pytest.approx(slow_hsic(k.numpy(), m.numpy()), rel=1e-9)


def test_the_minibatch_estimate_is_the_quotient_of_means_whatever_the_batches() -> None:
    x, y = features(103, 12, 20)
    terms = np.zeros(3)
    for begin in range(0, 100, 20):
        kernels = [(part[begin : begin + 20].double() @ part[begin : begin + 20].double().T) for part in (x, y)]
        pairs = ((0, 1), (0, 0), (1, 1))
        terms += [float(unbiased_hsic(kernels[a], kernels[b])) for a, b in pairs]
    for batch in (1, 20, 33, 103):
        found = MinibatchCKA(20)
        for a, b in zip(x.split(batch), y.split(batch)):
            found.add(a, b)
        assert found.value() == pytest.approx(terms[0] / math.sqrt(terms[1] * terms[2]), abs=1e-9)


def test_both_agree_on_many_images() -> None:
    x, y = features(4000, 12, 20)
    exact, estimate = CKA(), MinibatchCKA(100)
    exact.add(x, y)
    estimate.add(x, y)
    assert estimate.value() == pytest.approx(exact.value(), abs=0.02)


def test_known_values() -> None:
    x = features(50, 8)[0]
    turned = 3 * x @ torch.linalg.qr(torch.randn(8, 8)).Q + 5
    for measure in (CKA(), MinibatchCKA(16)):
        measure.add(x, turned)
        assert measure.value() == pytest.approx(1, abs=1e-6)
    constant = CKA()
    constant.add(x, torch.ones(50, 2))
    assert math.isnan(constant.value())
    few = MinibatchCKA()
    few.add(x[:3], x[:3])
    assert math.isnan(few.value())


def test_a_student_that_is_its_teacher() -> None:
    data, network, fabric = tiny.dataset(tests=40), tiny.network(), make_fabric("cpu", "float32")
    found = similarity(network, copy.deepcopy(network), data.test, data.normalisation, fabric, minibatch=8)
    assert found["kl"] == 0
    assert found["agreement"] == 100
    assert found["cka"] == pytest.approx(1, abs=1e-12)
    assert found["cka_minibatch"] == pytest.approx(1, abs=1e-12)


def test_kl_and_agreement_by_hand_and_whatever_the_batch() -> None:
    data, fabric = tiny.dataset(tests=40), make_fabric("cpu", "float32")
    teacher, student = tiny.network(), tiny.network((6, 8, 12))
    for network in (teacher, student):
        nn.init.normal_(network.head.linear.weight, std=2.0)
    found = similarity(teacher, student, data.test, data.normalisation, fabric, minibatch=10)
    mean, std = data.normalisation
    images = (data.test.images.float() - mean[:, None, None]) / std[:, None, None]
    p, q = (torch.softmax(net(images).double(), 1).detach().numpy() for net in (teacher, student))
    kl = sum(float(a * math.log(a / b)) for a, b in zip(p.ravel(), q.ravel())) / len(p)
    assert found["kl"] == pytest.approx(kl, abs=1e-6)
    assert found["agreement"] == pytest.approx(100 * (p.argmax(1) == q.argmax(1)).mean())
    x, y = (net.activations(images).embedding.detach().double().numpy() for net in (teacher, student))
    assert found["cka"] == pytest.approx(gram_cka(x, y), abs=1e-6)
    again = similarity(teacher, student, data.test, data.normalisation, fabric, minibatch=10, batch=7)
    assert again == pytest.approx(found, abs=1e-5)


def test_wrong_input() -> None:
    data, fabric = tiny.dataset(), make_fabric("cpu", "float32")
    with pytest.raises(InputError, match="4 classes and tiny has 5"):
        similarity(tiny.network(), tiny.network(classes=5), data.test, data.normalisation, fabric)
    with pytest.raises(InputError, match="minibatch 3"):
        similarity(tiny.network(), tiny.network(), data.test, data.normalisation, fabric, minibatch=3)


def test_one_image_is_not_enough_for_an_estimate_but_does_no_harm() -> None:
    data, network, fabric = tiny.dataset(), tiny.network(), make_fabric("cpu", "float32")
    one = Split(data.test.images[:1], data.test.labels[:1])
    found = similarity(network, network, one, data.normalisation, fabric)
    assert (found["kl"], found["agreement"]) == (0, 100)
    assert math.isnan(found["cka_minibatch"])
