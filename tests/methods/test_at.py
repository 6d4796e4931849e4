import math

import pytest
import torch

from sftn.methods.at import AT, attention_loss
from tests.support import golden_methods as golden


def slow(student, teacher, p):
    """Equation 2 for maps of one size: per image the channels' mean of |A|^p, ÷ its length; squared difference."""

    def maps(image):
        channels, height, width = len(image), len(image[0]), len(image[0][0])
        raw = [
            sum(abs(image[c][i][j]) ** p for c in range(channels)) / channels
            for i in range(height)
            for j in range(width)
        ]
        length = math.sqrt(sum(value**2 for value in raw))
        return [value / length for value in raw]

    pairs = [both for ours, theirs in zip(student, teacher) for both in zip(maps(ours), maps(theirs))]
    return sum((a - b) ** 2 for a, b in pairs) / len(pairs)


def pooled(feature):
    """Means of squares of 2×2."""
    return [
        [
            [
                (channel[i][j] + channel[i + 1][j] + channel[i][j + 1] + channel[i + 1][j + 1]) / 4
                for j in range(0, len(channel[0]), 2)
            ]
            for i in range(0, len(channel), 2)
        ]
        for channel in feature
    ]


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("case", golden.CASES)
def test_golden(case, dtype):
    values = golden.load(case, "at", dtype)
    features = tuple(golden.leaf(values[f"student_feature{k}"]) for k in range(3))
    theirs = tuple(values[f"teacher_feature{k}"] for k in range(3))
    per_stage = torch.stack([attention_loss(s, t) for s, t in zip(features, theirs)])
    golden.assert_golden(per_stage, values["per_stage"], dtype)

    method = AT(golden.pair(case))
    student, teacher = golden.both(method, 1)
    loss = method(student._replace(features=features), teacher._replace(features=theirs), golden.batch(1))
    loss.backward()
    golden.assert_golden(loss, values["loss"], dtype)
    for k, feature in enumerate(features):
        golden.assert_golden(feature.grad, values[f"grad_student{k}"], dtype)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_slow_reference(p):
    draw = torch.Generator().manual_seed(0)
    small = torch.randn(3, 2, 2, 3, dtype=torch.float64, generator=draw)
    same = torch.randn(3, 5, 2, 3, dtype=torch.float64, generator=draw)
    large = torch.randn(3, 4, 4, 6, dtype=torch.float64, generator=draw)
    averaged = [pooled(image) for image in large.tolist()]
    expected = slow(small.tolist(), averaged, p)
    assert attention_loss(small, same, p).item() == pytest.approx(slow(small.tolist(), same.tolist(), p), rel=1e-12)
    assert attention_loss(small, large, p).item() == pytest.approx(expected, rel=1e-12)
    assert attention_loss(large, small, p).item() == pytest.approx(expected, rel=1e-12)


def test_only_where_an_image_looks_matters_not_how_hard():
    student, teacher = torch.randn(2, 4, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    scale = torch.tensor([1e-3, 0.5, 2, 1e3], dtype=torch.float64).view(-1, 1, 1, 1)
    torch.testing.assert_close(attention_loss(student * scale, teacher), attention_loss(student, teacher))
    assert attention_loss(teacher * scale, teacher).item() == pytest.approx(0, abs=1e-15)
    assert attention_loss(teacher.roll(1, 1), teacher).item() == pytest.approx(0, abs=1e-15)
