import math

import pytest
import torch

from sftn.methods import rkd
from sftn.methods.rkd import RKD, relational_loss
from tests.support import golden_methods as golden


def huber(difference):
    return difference**2 / 2 if abs(difference) <= 1 else abs(difference) - 0.5


def slow(student, teacher, distance, angle):
    """Park et al., section 3.2: distances ÷ their mean, cosines at each anchor, Huber loss over all of them."""
    count = len(student)

    def relative(rows):
        plain = [[math.dist(x, y) for y in rows] for x in rows]
        mean = sum(map(sum, plain)) / (count * (count - 1))
        return [[value / mean for value in row] for row in plain]

    def cosine(rows, i, j, k):
        if j in (i, k):
            return 0.0
        first, second = ([a - b for a, b in zip(rows[end], rows[j])] for end in (i, k))
        return sum(a * b for a, b in zip(first, second)) / math.hypot(*first) / math.hypot(*second)

    ours, theirs, every = relative(student), relative(teacher), range(count)
    by_distance = sum(huber(ours[i][j] - theirs[i][j]) for i in every for j in every) / count**2
    triplets = [(i, j, k) for i in every for j in every for k in every]
    by_angle = sum(huber(cosine(student, *triplet) - cosine(teacher, *triplet)) for triplet in triplets) / count**3
    return distance * by_distance + angle * by_angle


def embeddings(count, seed=0):
    draw = torch.Generator().manual_seed(seed)
    sizes = (5, 7)
    return [torch.randn(count, size, dtype=torch.float64, generator=draw) for size in sizes]


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("case", golden.CASES)
def test_golden(case, dtype):
    values = golden.load(case, "rkd", dtype)
    method = RKD(golden.pair(case))
    assert (method.distance, method.angle) == (values["distance_weight"], values["angle_weight"])
    golden.assert_loss_and_gradient(method, values, dtype)


@pytest.mark.parametrize(("distance", "angle"), [(25, 50), (1, 0), (0, 1)])
def test_slow_reference(distance, angle):
    student, teacher = embeddings(5)
    student[0] *= 30  # far away, so that the Huber loss has both its parts
    expected = slow(student.tolist(), teacher.tolist(), distance, angle)
    assert relational_loss(student, teacher, distance, angle).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("memory", [1, 200, 500])
def test_chunks_change_nothing(memory, monkeypatch):
    student, teacher = embeddings(9)
    whole, chunked = golden.leaf(student), golden.leaf(student)
    expected = relational_loss(whole, teacher)
    expected.backward()
    monkeypatch.setattr(rkd, "MEMORY", memory)
    loss = relational_loss(chunked, teacher)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(chunked.grad, whole.grad, rtol=1e-11, atol=1e-13)


def test_motions_and_scale_change_nothing():
    student, teacher = embeddings(6, seed=1)
    draw = torch.Generator().manual_seed(2)
    rotation, _ = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64, generator=draw))
    moved = teacher @ rotation * 4 + torch.randn(7, dtype=torch.float64, generator=draw)
    assert relational_loss(moved, teacher).item() == pytest.approx(0, abs=1e-15)
    torch.testing.assert_close(relational_loss(student, moved), relational_loss(student, teacher))
    assert relational_loss(student, teacher) > 0


def test_equal_rows_count_as_near_and_disturb_no_gradient():
    student, teacher = embeddings(6, seed=3)
    student[1] = student[0]
    student = golden.leaf(student)
    relational_loss(student, teacher).backward()
    assert 0 < student.grad.abs().max() < 100

    near = student.detach().clone()
    near[1] += 1e-9
    expected = 25 * rkd.distance_loss(near, teacher)
    torch.testing.assert_close(25 * rkd.distance_loss(student, teacher), expected, rtol=1e-6, atol=0)


def test_one_image_has_no_relations():
    student, teacher = (golden.leaf(rows) for rows in embeddings(1))
    loss = relational_loss(student, teacher)
    loss.backward()
    assert loss.item() == 0
    assert not student.grad.any()
