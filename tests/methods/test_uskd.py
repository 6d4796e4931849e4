import math
import statistics

import pytest
import torch

from sftn.errors import InputError
from sftn.methods import USKD
from sftn.methods.uskd import order, self_distillation_loss, soft_target, zipf
from tests.support import golden_methods as golden

CLASSES = {"a": 10, "b": 100}


def uskd(classes, channels, **options):
    given = golden.of_classes(classes)
    maps = ((8, 16, 16), (channels, 8, 8), (32, 4, 4))
    return USKD(golden.replace(given, student=given.student._replace(features=maps)), **options)


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("case", golden.NEWER)
def test_golden(case, dtype):
    values = golden.newer(case, "uskd", dtype)
    how = golden.numbers(values, "alpha", "beta", "mu")
    method = uskd(CLASSES[case], values["middle_feature"].shape[1], **how).to(dtype)
    method.load_state_dict({name: values[name] for name in ("weak_head.weight", "weak_head.bias")})
    student, middle = golden.leaf(values["student_logits"]), golden.leaf(values["middle_feature"])
    labels = values["labels"]
    weak = method.weak_head(middle)
    golden.assert_golden(weak, values["weak_logits"], dtype)
    golden.assert_golden(soft_target(student, labels), values["soft_target"], dtype)
    ranked = order(student, weak, labels)
    assert torch.equal(ranked, values["order"])
    golden.assert_golden(zipf(ranked, labels, dtype), values["zipf"], dtype)
    parts = self_distillation_loss(student, weak, labels)
    golden.assert_golden(parts.target, values["target"], dtype)
    golden.assert_golden(parts.nontarget, values["nontarget"], dtype)
    golden.assert_golden(how["mu"] * parts.weak, values["weak"], dtype)
    loss = method.loss(student, middle, labels)
    loss.backward()
    golden.assert_golden(loss, values["loss"], dtype)
    golden.assert_golden(student.grad, values["grad_student"], dtype)
    golden.assert_golden(middle.grad, values["grad_middle"], dtype)
    for name, parameter in method.weak_head.named_parameters():
        golden.assert_golden(parameter.grad, values[f"grad_weak_head.{name}"], dtype)


def slow(student, weak, labels):
    """The three parts, image by image, as the paper has them (and the authors' code the scores)."""

    def softmax(row):
        powers = [math.exp(value) for value in row]
        return [power / sum(powers) for power in powers]

    p, q = [softmax(row) for row in student], [softmax(row) for row in weak]
    mean = statistics.fmean(row[y] ** 2 for row, y in zip(p, labels))
    target, rest, easy = [], [], []
    for ours, its, y in zip(p, q, labels):
        target.append(-(ours[y] ** 2 + 1 - mean) * math.log(ours[y]))
        logs = [math.log(value) for value in ours]
        scores = [a / (1 - its[y] + 1e-6) + b / (1 - logs[y] + 1e-6) for a, b in zip(its, logs)]
        ranks = {k: rank for rank, k in enumerate(sorted(range(len(scores)), key=lambda k: -scores[k]), 1)}
        left = [k for k in range(len(scores)) if k != y]
        whole = sum(1 / ranks[k] for k in left)
        rest.append(-sum(math.log(ours[k] / (1 - ours[y])) / ranks[k] / whole for k in left))
        labelled = [0.1 / len(its) + 0.9 * (k == y) for k in range(len(its))]
        easy.append(-sum(a * math.log(b) for a, b in zip(labelled, its)))
    return [statistics.fmean(part) for part in (target, rest, easy)]


def test_slow_reference():
    draw = torch.Generator().manual_seed(0)
    student, weak = torch.randn(2, 6, 7, dtype=torch.float64, generator=draw) * 2
    labels = torch.tensor([0, 6, 3, 3, 1, 2])
    found = self_distillation_loss(student, weak, labels)
    expected = slow(student.tolist(), weak.tolist(), labels.tolist())
    assert [part.item() for part in found] == pytest.approx(expected, rel=1e-10)


def test_soft_labels_are_probabilities_whose_target_is_one_on_average():
    draw = torch.Generator().manual_seed(1)
    student, weak = torch.randn(2, 16, 10, generator=draw)
    labels = torch.arange(16) % 10
    assert soft_target(student, labels).mean().item() == pytest.approx(1)
    shares = zipf(order(student, weak, labels), labels, torch.float32)
    torch.testing.assert_close(shares.sum(1), torch.ones(16))
    assert (shares > 0).all()


def test_two_classes_and_a_student_of_one_stage():
    method = uskd(2, 16)
    student, teacher = golden.both(method, 3)
    loss = method(student, teacher, golden.batch(3)._replace(labels=torch.tensor([0, 1, 1])))
    loss.backward()
    assert loss.isfinite()
    assert student.logits.grad.isfinite().all()
    given = golden.pair("equal")
    one = golden.replace(given, student=given.student._replace(features=given.student.features[:1]))
    with pytest.raises(InputError, match="last stage but one"):
        USKD(one)
    with pytest.raises(InputError, match="uskd's mu"):
        USKD(given, mu=-1.0)
