import math
import statistics

import pytest
import torch

from sftn.errors import InputError
from sftn.methods import MLKD, Batch
from sftn.methods.kd import divergence
from sftn.methods.logits import standardised
from sftn.methods.mlkd import batch_correlation_loss, class_correlation_loss, distorted, kept, multi_level_loss
from tests.support import golden_methods as golden

CLASSES = {"a": 10, "b": 100}


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("name", ["mlkd", "mlkd_lskd"])
@pytest.mark.parametrize("case", golden.NEWER)
def test_golden(case, name, dtype):
    values = golden.newer(case, name, dtype)
    temperatures = values["temperatures"].tolist()
    assert temperatures[1:] == [3, 5, 2, 6]
    weak, strong = golden.leaf(values["student_weak"]), golden.leaf(values["student_strong"])
    how = golden.numbers(values, "ce_weight", "kd_weight")
    how |= {"temperature": temperatures[0], "standardise": name == "mlkd_lskd"}
    teachers = values["teacher_weak"], values["teacher_strong"]
    parts = multi_level_loss(weak, strong, *teachers, values["labels"], **how)
    golden.assert_golden(parts.ce_weak + parts.ce_strong, values["ce"], dtype)
    for part in ("kd", "cc", "bc"):
        golden.assert_golden(getattr(parts, part), values[part], dtype)
    loss = torch.stack(parts).sum()
    loss.backward()
    golden.assert_golden(loss, values["loss"], dtype)
    golden.assert_golden(weak.grad, values["grad_student_weak"], dtype)
    golden.assert_golden(strong.grad, values["grad_student_strong"], dtype)
    for mask, name in zip(kept(teachers[0]), ("samples", "classes")):
        assert torch.equal(mask.long(), values[f"kept_{name}"])
    change = standardised if how["standardise"] else lambda logits: logits
    given = values["student_weak"], teachers[0]
    kd = torch.stack([divergence(*map(change, given), T) for T in temperatures])
    golden.assert_golden(kd, values["kd_weak_each"], dtype)
    of_strong = values["student_strong"], teachers[1]
    kd = torch.stack([divergence(*map(change, of_strong), T) for T in temperatures[:3]])
    golden.assert_golden(kd, values["kd_strong_each"], dtype)
    for loss, short in ((class_correlation_loss, "cc"), (batch_correlation_loss, "bc")):
        each = torch.stack([loss(*given, T) for T in temperatures])
        golden.assert_golden(each, values[f"{short}_weak_each"], dtype)


@pytest.mark.parametrize("case", golden.NEWER)
def test_golden_with_the_objectives_cross_entropy(case):
    """The method has everything but the weak view's, which stands in the objective."""
    values = golden.newer(case, "mlkd")
    method = MLKD(golden.of_classes(CLASSES[case]))
    views = ("weak", "strong")
    rows = [torch.stack([values[f"{role}_{view}"] for view in views], 1) for role in ("student", "teacher")]
    size = len(values["labels"])
    given = Batch(torch.zeros(2 * size, 3, 8, 8), values["labels"], torch.arange(size))
    ours, theirs = golden.both(method, 2 * size)
    loss = method(ours._replace(logits=rows[0].flatten(0, 1)), theirs._replace(logits=rows[1].flatten(0, 1)), given)
    ce = torch.nn.functional.cross_entropy(values["student_weak"], values["labels"])
    golden.assert_golden(loss + 0.1 * ce, values["loss"], torch.float64)


def slow(student, teacher, temperature):
    """KD, CC and BC of one view, number by number."""

    def softmax(row):
        powers = [math.exp(value / temperature) for value in row]
        return [power / sum(powers) for power in powers]

    def products(rows):
        return [[sum(a * b for a, b in zip(x, y)) for y in rows] for x in rows]

    def squares(one, other):
        return sum((a - b) ** 2 for x, y in zip(products(one), products(other)) for a, b in zip(x, y))

    ours, theirs = ([softmax(row) for row in rows] for rows in (student, teacher))
    kd = statistics.fmean(sum(p * math.log(p / q) for p, q in zip(*rows)) for rows in zip(theirs, ours))
    columns = list(zip(*ours)), list(zip(*theirs))
    return kd * temperature**2, squares(*columns) / len(columns[0]), squares(ours, theirs) / len(ours)


def logits(rows=5, classes=7):
    draw = torch.Generator().manual_seed(0)
    four = torch.randn(4, rows, classes, dtype=torch.float64, generator=draw) * 2
    return [*four, torch.randint(classes, (rows,), generator=draw)]


def test_slow_reference():
    *views, labels = logits()
    weak, strong = ([view.tolist() for view in views[k::2]] for k in (0, 1))
    found = multi_level_loss(*views, labels, ce_weight=0.3, kd_weight=0.7)
    kds, ccs, bcs = zip(*(slow(*weak, T) for T in (4, 3, 5, 2, 6)))
    of_strong = sum(slow(*strong, T)[0] for T in (4, 3, 5))
    probabilities = views[2].softmax(1).tolist()
    sure, seen = [max(row) for row in probabilities], [sum(column) for column in zip(*probabilities)]
    images, classes = (
        statistics.fmean(value <= statistics.median(values) for value in values) for values in (sure, seen)
    )
    assert (images, classes) == (3 / 5, 4 / 7)
    assert found.kd.item() == pytest.approx(0.7 * (images * sum(kds) + of_strong + kds[3] + kds[4]), rel=1e-12)
    assert found.cc.item() == pytest.approx(0.7 * classes * sum(ccs), rel=1e-12)
    assert found.bc.item() == pytest.approx(0.7 * images * sum(bcs), rel=1e-12)


def test_a_student_that_agrees_costs_its_cross_entropy_alone():
    *views, labels = logits()
    parts = multi_level_loss(*views[2:], *views[2:], labels)
    assert parts.ce_weak > 0
    assert [part.item() for part in parts[2:]] == pytest.approx([0, 0, 0], abs=1e-12)


@pytest.mark.parametrize("kind", golden.HOSTILE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_hostile_logits(kind, dtype):
    for size in (1, 2, 64):
        for classes in (2, 10):
            method = MLKD(golden.of_classes(classes), standardise=classes > 2)
            ours, theirs = golden.both(method, 2 * size)
            student = golden.changed(ours._replace(logits=ours.logits.detach().to(dtype)), kind)
            given = Batch(torch.zeros(2 * size, 3, 8, 8), torch.arange(size) % classes, torch.arange(size))
            loss = method(student, theirs, given)
            loss.backward()
            assert loss.isfinite()
            assert theirs.logits.grad is None
            assert student.logits.grad.isfinite().all()


def test_every_second_image_is_distorted_and_the_first_is_as_it_was():
    torch.manual_seed(0)
    images = torch.randn(64, 3, 8, 8)
    views = MLKD(golden.pair("equal")).views(images)
    assert torch.equal(views[::2], images[::2])
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(views[1::2], images[1::2])]
    assert sum(same) < 8
    assert torch.equal(MLKD(golden.pair("equal"), distort=False).views(images), images)


def test_distortion_moves_at_most_its_limits_and_repeats_from_a_seed():
    torch.manual_seed(1)
    images = torch.zeros(500, 1, 20, 20)
    images[:, :, 9:11, 9:11] = 4.0
    found = distorted(images)
    torch.manual_seed(1)
    assert torch.equal(distorted(images), found)
    ground = found.flatten(1).median(1).values.view(-1, 1, 1, 1)
    weight = (found - ground - 1.5).clamp_min(0)
    total = weight.sum((1, 2, 3))
    assert (total > 0).all()
    rows = torch.arange(20.0) - 9.5
    for dims in ((1, 3), (1, 2)):
        centre = (weight.sum(dims) * rows).sum(1) / total
        assert centre.abs().max() <= 2 * 0.15 * 20 + 1
        assert centre.abs().max() > 2


@pytest.mark.parametrize("options", [{"kd_weight": -1.0}, {"ce_weight": -1.0}, {"temperature": 0.0}])
def test_options_out_of_range_are_refused(options):
    (name,) = options
    with pytest.raises(InputError, match=f"mlkd's {name}"):
        MLKD(golden.pair("equal"), **options)
