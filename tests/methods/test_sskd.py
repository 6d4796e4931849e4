import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from sftn.data.loader import Batch
from sftn.errors import InputError
from sftn.methods.kd import distillation_loss
from sftn.methods.sskd import SSKD, kept, similarity, supervised, teacher_head_loss, transformed, truth_rank
from sftn.networks.alignment import Pair
from sftn.spec.schedule import Schedule
from tests.support import golden_methods as golden


def rotated(rows: Tensor) -> Tensor:
    return rows[[row for row in range(len(rows)) if row % 4]]


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("case", golden.CASES)
def test_terms_and_gradients_match_the_golden_values(case: str, dtype: torch.dtype) -> None:
    values = golden.load(case, "sskd", dtype)
    logits, projection = golden.leaf(values["student_logits"]), golden.leaf(values["student_projection"])
    tf = transformed(
        logits, values["teacher_logits"], values["labels"], float(values["tf_temperature"]), float(values["ratio_tf"])
    )
    ss = supervised(
        projection, values["teacher_projection"], float(values["ss_temperature"]), float(values["ratio_ss"])
    )
    ce = F.cross_entropy(logits[::4], values["labels"])
    kd = distillation_loss(logits[::4], values["teacher_logits"][::4], float(values["kd_temperature"]))
    loss = torch.stack([ce, kd, tf, ss]) @ values["weights"]
    loss.backward()
    for name, computed in {"ce": ce, "kd": kd, "tf": tf, "ss": ss, "loss": loss}.items():
        golden.assert_golden(computed, values[name], dtype)
    golden.assert_golden(logits.grad, values["grad_logits"], dtype)
    golden.assert_golden(projection.grad, values["grad_projection"], dtype)
    golden.assert_golden(teacher_head_loss(values["teacher_projection"]), values["teacher_head_loss"], dtype)


@pytest.mark.parametrize("case", golden.CASES)
def test_the_kept_rows_are_the_golden_ones(case: str) -> None:
    values = golden.load(case, "sskd")
    rank = truth_rank(rotated(values["teacher_logits"]), values["labels"].repeat_interleave(3))
    assert torch.equal(kept(rank, float(values["ratio_tf"])).nonzero().squeeze(1), values["kept_tf"])
    likeness = similarity(values["teacher_projection"])
    rank = truth_rank(likeness, torch.arange(len(values["labels"])).repeat_interleave(3))
    assert torch.equal(kept(rank, float(values["ratio_ss"])).nonzero().squeeze(1), values["kept_ss"])


def slow_kept(table: list[list[float]], truth: list[int], ratio: float) -> list[int]:
    ranks = [sorted(range(len(row)), key=lambda k: (-row[k], k)).index(own) for row, own in zip(table, truth)]
    wrong = sum(rank > 0 for rank in ranks)
    order = sorted(range(len(ranks)), key=lambda row: (ranks[row], row))
    return order[: len(ranks) - wrong + int(wrong * ratio)]


def slow_divergence(ours: list[list[float]], theirs: list[list[float]], rows: list[int], temperature: float) -> float:
    def softmax(row: list[float]) -> list[float]:
        exponentials = [math.exp(value / temperature) for value in row]
        return [value / sum(exponentials) for value in exponentials]

    total = 0.0
    for row in rows:
        total += sum(q * math.log(q / p) for p, q in zip(softmax(ours[row]), softmax(theirs[row])))
    return total / len(rows) * temperature**2


def slow_cosines(projection: Tensor) -> list[list[float]]:
    rows = projection.tolist()
    table = []
    for row in range(len(rows)):
        if row % 4:
            one = rows[row]
            products = [sum(a * b for a, b in zip(one, up)) for up in rows[::4]]
            table.append([p / math.hypot(*one) / math.hypot(*up) for p, up in zip(products, rows[::4])])
    return table


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 1.0])
def test_both_terms_are_the_slow_reference(ratio: float) -> None:
    torch.manual_seed(0)
    ours, theirs, labels = torch.randn(20, 6).double(), torch.randn(20, 6).double(), torch.randint(6, (5,))
    truth = labels.repeat_interleave(3).tolist()
    rows = slow_kept(rotated(theirs).tolist(), truth, ratio)
    expected = slow_divergence(rotated(ours).tolist(), rotated(theirs).tolist(), rows, 4.0)
    assert transformed(ours, theirs, labels, 4.0, ratio).item() == pytest.approx(expected, rel=1e-12)

    mine, yours = slow_cosines(ours), slow_cosines(theirs[:, :4])
    rows = slow_kept(yours, [image for image in range(5) for _ in range(3)], ratio)
    expected = slow_divergence(mine, yours, rows, 0.5)
    assert supervised(ours, theirs[:, :4], 0.5, ratio).item() == pytest.approx(expected, rel=1e-9)


def test_the_teacher_head_loss_is_the_slow_reference() -> None:
    torch.manual_seed(1)
    projection = torch.randn(12, 5).double()
    table = slow_cosines(projection)
    expected = sum(math.log(sum(map(math.exp, row))) - row[k // 3] for k, row in enumerate(table)) / len(table)
    assert teacher_head_loss(projection).item() == pytest.approx(expected, rel=1e-12)


def test_ranking_never_asks_the_device_for_a_value() -> None:
    # Fake tensors have no values: whatever would make the host wait for one raises.
    with FakeTensorMode():
        ours, theirs, labels = torch.randn(20, 6), torch.randn(20, 6), torch.zeros(5).long()
        assert transformed(ours, theirs, labels, 4.0, 0.5).shape == ()
        assert supervised(ours, theirs, 0.5, 0.75).shape == ()


def test_ranking_keeps_all_right_rows_and_the_first_of_equal_wrong_ones() -> None:
    rank = torch.tensor([2, 0, 1, 1, 0, 3, 1])
    assert kept(rank, 0.0).nonzero().squeeze(1).tolist() == [1, 4]
    assert kept(rank, 0.4).nonzero().squeeze(1).tolist() == [1, 2, 3, 4]
    assert kept(rank, 0.5).nonzero().squeeze(1).tolist() == [1, 2, 3, 4]
    assert kept(rank, 1.0).all()
    wrong = torch.ones(100, dtype=torch.int64)
    assert int(kept(wrong, 0.29).sum()) == 29
    assert truth_rank(torch.zeros(3, 4), torch.tensor([0, 2, 3])).tolist() == [0, 2, 3]


def test_both_terms_are_zero_where_the_student_is_the_teacher() -> None:
    torch.manual_seed(2)
    rows = torch.randn(16, 6).double()
    assert transformed(rows, rows, torch.arange(4), 4.0, 0.5).item() == pytest.approx(0, abs=1e-12)
    assert supervised(3 * rows, rows, 0.5, 0.75).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("independent", [True, False])
def test_views_turn_counter_clockwise_and_stand_side_by_side(independent: bool) -> None:
    method = SSKD(golden.pair("equal"), independent_crops=independent)
    assert method.copies == (4 if independent else 1)
    assert not method.flip
    images = torch.randn(3 * method.copies, 2, 5, 5)
    views = method.views(images)
    assert views.shape == (12, 2, 5, 5)
    for image in range(3):
        for view in range(4):
            given = images[image * 4 + view if independent else image]
            assert np.array_equal(views[image * 4 + view], np.rot90(given.numpy(), view, axes=(1, 2)))


def rows(pair: Pair, size: int, dtype: torch.dtype = torch.float32) -> tuple:
    student = golden.activations(pair.student, 4 * size, dtype, seed=1)
    return student, golden.activations(pair.teacher, 4 * size, dtype, seed=2), golden.batch(size, views=4)


@pytest.mark.parametrize("case", golden.STUDENTS)
def test_forward_weighs_both_terms_and_trains_only_the_students_side(case: str) -> None:
    torch.manual_seed(3)
    method = SSKD(
        golden.pair(case), tf=2.0, ss=3.0, tf_temperature=3.0, ss_temperature=0.4, tf_ratio=0.5, ss_ratio=0.25
    )
    student, teacher, batch = rows(method.pair, 4)
    loss = method(student, teacher, batch)
    loss.backward()
    projections = method.student_head(student.embedding), method.teacher_head(teacher.embedding)
    tf = transformed(student.logits, teacher.logits, batch.labels, 3.0, 0.5)
    assert loss.item() == pytest.approx(2 * tf.item() + 3 * supervised(*projections, 0.4, 0.25).item(), rel=1e-6)
    assert method.trains() == [method.student_head]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in method.student_head.parameters())
    assert all(parameter.grad is None for parameter in method.teacher_head.parameters())
    assert student.embedding.grad is not None
    assert student.embedding.grad.any()
    assert student.logits.grad is not None
    # The upright rows' logits belong to CE and KD.
    assert not student.logits.grad[::4].any()
    assert student.logits.grad.any()
    assert all(value.grad is None for value in golden.leaves(teacher))


def test_the_first_stage_trains_the_teachers_head_alone_without_labels() -> None:
    torch.manual_seed(4)
    student, teacher = golden.network(4, 8), golden.network(6, 12)
    pair = Pair.of(teacher, student, (3, 8, 8), torch.arange(20) % golden.CLASSES)
    method = SSKD(pair)
    phase = method.warmup(student, teacher, Schedule(lr=0.01))
    assert phase.trains == (method.teacher_head,)
    assert (phase.schedule.epochs, phase.schedule.lr) == (60, 0.05)
    assert [phase.schedule.lr_at(epoch) for epoch in (29, 30, 44, 45)] == pytest.approx([0.05, 5e-3, 5e-3, 5e-4])
    assert method.warmup(student, teacher, Schedule(epochs=4)).schedule.epochs == 1

    images = torch.randn(20, 3, 8, 8)
    phase.task.requires_grad_(False).eval()
    method.teacher_head.requires_grad_(True)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    optimizer = torch.optim.SGD(method.teacher_head.parameters(), lr=0.5)
    losses = golden.losses(lambda: phase.task(images, torch.empty(0), torch.empty(0))["loss"], optimizer, 15)
    assert losses[-1] < losses[0]
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    embedding = teacher.eval().activations(method.views(images)).embedding
    expected = teacher_head_loss(method.teacher_head(embedding))
    assert phase.task(images, torch.empty(0), torch.empty(0))["loss"].item() == pytest.approx(expected.item(), rel=1e-6)


@golden.hostile
def test_hostile_activations_leave_everything_finite(kind: str, dtype: torch.dtype, size: int) -> None:
    torch.manual_seed(5)
    method = SSKD(golden.pair("equal"))
    student, teacher, batch = rows(method.pair, size, dtype)
    student = golden.changed(student, kind)
    for theirs in (teacher, golden.changed(teacher, kind)):
        method.zero_grad()
        loss = method(student, theirs, batch)
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        loss.backward()
        gradients = [value.grad for value in (*golden.leaves(student), *method.parameters()) if value.grad is not None]
        assert len(gradients) == 6
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert all(value.grad is None for value in golden.leaves(theirs))


def cores() -> list[Callable[[Tensor], Tensor]]:
    other = torch.randn(8, 5)
    return [
        teacher_head_loss,
        lambda mine: supervised(mine, other, 0.5, 0.75),
        lambda mine: supervised(mine, mine, 0.5, 0.75),
    ]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_projection_of_zeros_has_a_finite_gradient(which: int) -> None:
    zeros = torch.zeros(8, 5, requires_grad=True)
    cores()[which](zeros).backward()
    assert zeros.grad is not None
    assert zeros.grad.isfinite().all()


def test_the_state_goes_round() -> None:
    method, fresh = SSKD(golden.pair("equal")), SSKD(golden.pair("equal"))
    student, teacher, batch = rows(method.pair, 4)
    assert not torch.equal(method(student, teacher, batch), fresh(student, teacher, batch))
    fresh.load_state_dict(method.state_dict())
    assert torch.equal(method(student, teacher, batch), fresh(student, teacher, batch))


def test_autocast_ranks_and_compares_in_float32() -> None:
    torch.manual_seed(6)
    method = SSKD(golden.pair("equal"))
    student, teacher, batch = rows(method.pair, 4)
    expected = method(student, teacher, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method(student, teacher, Batch(*batch))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.02)


def test_maps_that_are_not_square_and_shares_that_are_none_are_refused() -> None:
    pair = golden.pair("equal")
    shapes = pair.student._replace(features=((8, 16, 12), *pair.student.features[1:]))
    with pytest.raises(InputError, match="needs square ones, but there are maps of 16×12: resize or crop"):
        SSKD(replace(pair, student=shapes))
    with pytest.raises(InputError, match="needs square ones, not 8×6"):
        SSKD(pair).views(torch.zeros(4, 3, 8, 6))
    with pytest.raises(InputError, match="ss_ratio is 75: give a share between 0 and 1"):
        SSKD(pair, ss_ratio=75)
