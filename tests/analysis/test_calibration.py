"""Entropy and calibration against sums over single images."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sftn.analysis.calibration import confidence
from sftn.data.dataset import Split
from sftn.runtime.device import make_fabric
from sftn.training.evaluate import evaluate
from tests.support import tiny


class Fixed(nn.Module):
    """Answers with the logits that are written into an image's first pixels, as levels divided by 10."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0, 0, :4] / 10


def split(logits: Tensor, labels: Tensor) -> Split:
    images = torch.zeros(len(logits), 3, 8, 8, dtype=torch.uint8)
    images[:, 0, 0, :4] = logits
    return Split(images, labels)


PLAIN = (torch.zeros(3), torch.ones(3))


def look(logits: Tensor, labels: Tensor, **options: int) -> dict[str, float]:
    return confidence(Fixed(), split(logits, labels), PLAIN, make_fabric("cpu", "float32"), **options)  # type: ignore[arg-type]


def test_a_uniform_output_has_entropy_log_k() -> None:
    found = look(torch.zeros(10, 4), torch.zeros(10, dtype=torch.long))
    assert found["entropy"] == pytest.approx(math.log(4), abs=1e-12)
    assert found["confidence"] == pytest.approx(25)


def test_a_sure_output_has_none() -> None:
    found = look(torch.tensor([[255, 0, 0, 0]] * 4), torch.tensor([0, 0, 0, 1]))
    assert found["entropy"] == pytest.approx(0, abs=1e-8)
    assert found["ece"] == pytest.approx(25, abs=1e-6)


def test_it_equals_sums_over_single_images() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randint(0, 40, (60, 4), generator=generator)
    labels = torch.randint(0, 4, (60,), generator=generator)
    entropy, bins = 0.0, [[0, 0.0, 0.0] for _ in range(15)]
    for row, label in zip(logits.tolist(), labels.tolist()):
        powers = [math.exp(value / 10) for value in row]
        p = [power / sum(powers) for power in powers]
        entropy -= sum(value * math.log(value) for value in p)
        best = max(p)
        (which,) = [b for b in range(15) if b / 15 < best <= (b + 1) / 15]
        bins[which][0] += 1
        bins[which][1] += p.index(best) == label
        bins[which][2] += best
    ece = sum(abs(right - sure) for _, right, sure in bins) / 60
    found = look(logits, labels)
    assert found["entropy"] == pytest.approx(entropy / 60, rel=1e-6)
    assert found["ece"] == pytest.approx(100 * ece, rel=1e-5)
    assert look(logits, labels, batch=7) == pytest.approx(found, rel=1e-9)
    assert look(logits, labels, bins=1)["ece"] == pytest.approx(abs(found["confidence"] - found["accuracy"]), rel=1e-6)


def test_ties_are_broken_as_evaluation_breaks_them() -> None:
    logits = torch.randint(0, 2, (200, 4), generator=torch.Generator().manual_seed(5))
    images, fabric = split(logits, torch.arange(200) % 4), make_fabric("cpu", "float32")
    right = int((logits.argmax(1) == images.labels).sum())
    found = evaluate(Fixed(), images, PLAIN, fabric)["accuracy"]  # type: ignore[arg-type]
    assert found != 100 * (right / 200)  # otherwise these images would show nothing
    assert look(logits, images.labels)["accuracy"] == found


def test_it_agrees_with_evaluation() -> None:
    data, network, fabric = tiny.dataset(), tiny.network(), make_fabric("cpu", "float32")
    ours, theirs = (look(network, data.test, data.normalisation, fabric) for look in (confidence, evaluate))
    assert {key: ours[key] for key in ("entropy", "accuracy")} == pytest.approx(
        {key: theirs[key] for key in ("entropy", "accuracy")}, rel=1e-5
    )
