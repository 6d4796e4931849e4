from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sftn.methods.ensemble import Voices, combined, teacher_weights
from sftn.methods.kd import distillation_loss
from sftn.spec.run import Weighting

B, M, K = 5, 3, 4
LABELS = torch.arange(B) % K


def logits(scale: float = 3.0) -> Tensor:
    return scale * torch.randn(B, M, K, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def slow_softmax(row: Tensor, temperature: float) -> list[float]:
    grown = [math.exp(value / temperature) for value in row.tolist()]
    return [value / sum(grown) for value in grown]


def slow_weights(given: Tensor, weighting: Weighting) -> list[list[float]]:
    """The weights of arXiv:2201.00007, number by number."""
    found = []
    for image in range(B):
        if weighting == "mean":
            found.append([1 / M] * M)
            continue
        entropies = [-math.log(slow_softmax(given[image, m], 1.0)[LABELS[image]]) for m in range(M)]
        grown = [math.exp(entropy) for entropy in entropies]
        found.append([(1 - value / sum(grown)) / (M - 1) for value in grown])
    return found


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("weighting", ["mean", "ca"])
def test_the_weighted_mean_of_softened_outputs_as_a_loop_has_it(weighting: Weighting, temperature: float) -> None:
    given = logits()
    weights = teacher_weights(given, LABELS, weighting)
    slow = slow_weights(given, weighting)
    torch.testing.assert_close(weights, torch.tensor(slow, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    found = (combined(given, weights, temperature) / temperature).softmax(1)
    for image in range(B):
        soft = [slow_softmax(given[image, m], temperature) for m in range(M)]
        expected = [sum(slow[image][m] * soft[m][k] for m in range(M)) for k in range(K)]
        assert found[image].tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("weighting", ["mean", "ca"])
def test_the_gradient_is_that_of_the_weighted_mean_of_divergences_as_ca_mkd_has_it(weighting: Weighting) -> None:
    given, temperature = logits(), 4.0
    weights = teacher_weights(given, LABELS, weighting)
    student = torch.randn(B, K, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    (ours,) = torch.autograd.grad(
        distillation_loss(student, combined(given, weights, temperature), temperature), student
    )
    log = F.log_softmax(student / temperature, 1)
    theirs = [F.kl_div(log, (given[:, m] / temperature).softmax(1), reduction="none").sum(1) for m in range(M)]
    apart = (weights * torch.stack(theirs, 1)).sum(1).mean() * temperature**2
    (expected,) = torch.autograd.grad(apart, student)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("weighting", ["mean", "ca"])
def test_the_order_of_teachers_does_not_matter(weighting: Weighting) -> None:
    given, order = logits(), [2, 0, 1]
    one, other = (combined(some, teacher_weights(some, LABELS, weighting), 2.0) for some in (given, given[:, order]))
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("weighting", ["mean", "ca"])
def test_teachers_that_agree_are_one_teacher(weighting: Weighting) -> None:
    given = logits()[:, :1].expand(-1, M, -1)
    weights = teacher_weights(given, LABELS, weighting)
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / M), rtol=1e-12, atol=1e-12)
    student = torch.randn(B, K, dtype=torch.float64)
    together = distillation_loss(student, combined(given, weights, 4.0))
    torch.testing.assert_close(together, distillation_loss(student, given[:, 0]), rtol=1e-10, atol=1e-12)


def test_a_teacher_that_is_surely_wrong_does_not_count_and_all_stays_finite() -> None:
    """In float32, logits so far apart that softmax and cross-entropy leave nothing of the wrong teacher's weight."""
    right, wrong = torch.zeros(1, K), torch.zeros(1, K)
    right[0, 0], wrong[0, 1] = 1e5, 1e5
    voices = Voices.of(torch.cat([right, wrong], 1), torch.tensor([0]), 2, "ca")
    assert voices.weights.tolist() == [[1.0, 0.0]]
    assert voices.together(4.0).softmax(1)[0].tolist() == [1, 0, 0, 0]
    for weighting in ("mean", "ca"):
        for label in range(K):
            found = Voices.of(torch.cat([right, wrong], 1), torch.tensor([label]), 2, weighting).together(4.0)  # type: ignore[arg-type]
            assert found.isfinite().all()


def test_every_view_of_an_image_is_weighed_by_its_own_label() -> None:
    """Two views of each image, one after the other; weights as if the views were images with that label."""
    given = logits()[:4]
    labels = torch.tensor([2, 1])
    voices = Voices.of(given.flatten(1), labels, M, "ca")
    assert torch.equal(voices.weights, teacher_weights(given, torch.tensor([2, 2, 1, 1]), "ca"))
    assert torch.equal(voices.first, given[:, 0])
