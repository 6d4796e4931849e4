import math

import pytest
import torch

from sftn.errors import InputError
from sftn.methods.ft import FT, bounded, factor_loss, reconstruction_loss
from sftn.networks.alignment import Pair
from sftn.spec.schedule import Schedule
from tests.support import golden_methods as golden


def slow(student, teacher, p1, p2):
    """Kim et al.: each factor's map ÷ its length, the mean of |difference|^p2."""

    def maps(image):
        positions = list(zip(*(channel.flatten().tolist() for channel in image)))
        raw = [sum(abs(value) ** p1 for value in position) / len(position) for position in positions]
        return [value / math.hypot(*raw) for value in raw]

    pairs = [both for ours, theirs in zip(student, teacher) for both in zip(maps(ours), maps(theirs))]
    return sum(abs(a - b) ** p2 for a, b in pairs) / len(pairs)


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("case", golden.CASES)
def test_golden(case, dtype):
    values = golden.load(case, "ft", dtype)
    method = FT(golden.pair(case)).to(dtype)
    state = {name: values[name] for name in method.state_dict()}
    assert len(state) == sum("." in name for name in values)
    method.load_state_dict(state)
    theirs = values["teacher_feature"]
    golden.assert_golden(method.translator(values["student_feature"]), values["student_factor"], dtype)
    golden.assert_golden(method.paraphraser.encoder(theirs), values["teacher_factor"], dtype)
    reconstruction = method.paraphraser(theirs)
    golden.assert_golden(reconstruction, values["reconstruction"], dtype)
    golden.assert_golden(reconstruction_loss(reconstruction, theirs), values["reconstruction_loss"], dtype)
    golden.assert_loss_and_gradient(method, values, dtype, stage=2)


@pytest.mark.parametrize(("p1", "p2"), [(2, 1), (1, 2), (3, 1)])
def test_slow_reference(p1, p2):
    draw = torch.Generator().manual_seed(0)
    student = torch.randn(3, 4, 2, 3, dtype=torch.float64, generator=draw)
    teacher = torch.randn(3, 4, 2, 3, dtype=torch.float64, generator=draw)
    large = teacher.repeat_interleave(2, 2).repeat_interleave(2, 3)  # pooled, it is the teacher again
    expected = pytest.approx(slow(student, teacher, p1, p2), rel=1e-12)
    assert factor_loss(student, teacher, p1, p2).item() == expected
    assert factor_loss(student, large, p1, p2).item() == expected
    assert factor_loss(large, student, p1, p2).item() == expected


def test_zero_where_factors_differ_by_a_scale_or_in_the_order_of_channels():
    student, teacher = torch.randn(2, 4, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    scale = torch.tensor([1e-3, 0.5, -2, 1e3], dtype=torch.float64).view(-1, 1, 1, 1)
    assert factor_loss(teacher.roll(1, 1) * scale, teacher).item() == pytest.approx(0, abs=1e-15)
    torch.testing.assert_close(factor_loss(student * scale, teacher), factor_loss(student, teacher))
    assert factor_loss(student, teacher) > 0


def test_the_main_phase_trains_the_translator_alone():
    method = FT(golden.pair("equal"))
    student, teacher = golden.both(method, 3)
    method(student, teacher, golden.batch(3)).backward()
    assert method.trains() == [method.translator]
    assert all(parameter.grad is not None for parameter in method.translator.parameters())
    assert all(parameter.grad is None for parameter in method.paraphraser.parameters())


def test_warmup():
    torch.manual_seed(0)
    teacher, student = golden.network(4, 6, 8), golden.network(4, 8)
    method = FT(Pair.of(teacher, student, (3, 8, 8), torch.arange(10)))
    phase = method.warmup(student, teacher.eval(), Schedule(epochs=24, lr=0.2))
    assert (phase.schedule.epochs, phase.schedule.milestones, phase.schedule.lr) == (3, (), 0.01)
    assert phase.trains == (method.paraphraser,)

    images, labels, index = torch.randn(6, 3, 8, 8), torch.arange(6), torch.arange(6)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    with torch.no_grad():
        feature = teacher.activations(images).features[-1]
    optimizer = torch.optim.SGD(method.paraphraser.parameters(), lr=0.1, momentum=0.9)
    losses = golden.losses(lambda: phase.task(images, labels, index)["loss"], optimizer, 60)
    assert losses[-1] < 0.8 * losses[0]
    assert losses[-1] == pytest.approx((method.paraphraser(feature) - feature).square().mean().item(), rel=0.05)
    assert all(p.grad is None for module in (teacher, student, method.translator) for p in module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_the_warmup_reads_the_aligned_stage():
    teacher, student = golden.network(4, 6, 8), golden.network(4, 8)
    pair = Pair.of(teacher, student, (3, 8, 8), torch.arange(10), alignment=((0, 0), (1, 1)))
    method = FT(pair)
    assert method.paraphraser.encoder[0].in_channels == 6
    task = method.warmup(student, teacher, Schedule()).task
    assert task(torch.randn(2, 3, 8, 8), torch.zeros(2), torch.zeros(2))["loss"] > 0


@pytest.mark.parametrize(("k", "factors"), [(0.5, 32), (2, 128), (0.001, 1)])
def test_paraphrase_rate(k, factors):
    method = FT(golden.pair("equal"), k=k)
    assert method.paraphraser.encoder[6].out_channels == method.translator.encoder[6].out_channels == factors


def test_bad_paraphrase_rate():
    with pytest.raises(InputError, match="above 0"):
        FT(golden.pair("equal"), k=0)


@golden.hostile
def test_hostile_activations(kind, dtype, size):
    method = FT(golden.pair("halved"))
    golden.assert_survives(method, kind, dtype, size)
    feature = golden.activations(method.pair.teacher, size, dtype).features[-1]
    assert reconstruction_loss(method.paraphraser(feature.float()), feature).isfinite()


def test_the_warmup_of_a_teacher_with_large_features_converges():
    """Without a bound the squared error of features of size 30 diverges at this rate within a few steps."""
    method, feature = FT(golden.pair("equal")), 30 * torch.randn(8, *golden.pair("equal").teacher.features[-1]).relu()
    sgd = torch.optim.SGD(method.paraphraser.parameters(), lr=0.01, momentum=0.9)
    target = bounded(feature)
    losses = golden.losses(lambda: reconstruction_loss(method.paraphraser(target), target), sgd, 60)
    assert losses[-1] < 0.9 * losses[0]
    assert bounded(feature).square().mean().sqrt().item() == pytest.approx(1.5, rel=1e-5)
    assert torch.equal(bounded(feature / 30), feature / 30)
