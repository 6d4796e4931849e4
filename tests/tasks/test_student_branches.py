from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from sftn.errors import InputError
from sftn.networks import build
from sftn.tasks.student_branches import StudentBranches
from sftn.tasks.supervised import Supervised
from tests.support import tiny


def teacher_and_branches(**options: object) -> StudentBranches:
    return StudentBranches(tiny.network((6, 8, 12)), tiny.network, tiny.IMAGE, **options)  # type: ignore[arg-type]


def batch(size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(size, *tiny.IMAGE), torch.arange(size) % tiny.CLASSES


def test_loss_is_the_equation_written_out() -> None:
    options = {"teacher_ce": 2.0, "branch_kl": 3.0, "branch_ce": 0.5, "temperature": 2.0}
    task = teacher_and_branches(**options).eval()
    images, labels = batch()
    found = task(images, labels)["loss"]

    logits, _, features, _ = task.teacher.activations(images)
    expected = 0.0
    for stage, branch in enumerate(task.branches):
        answer = branch(features[stage])
        kl = cross = 0.0
        for row in range(len(labels)):
            p, q = F.softmax(logits[row] / 2, 0), F.softmax(answer[row] / 2, 0)
            kl += sum((p[c] * (p[c] / q[c]).log()).item() for c in range(tiny.CLASSES)) * 2**2 / len(labels)
            cross -= F.softmax(answer[row], 0)[labels[row]].log().item() / len(labels)
        expected += (3 * kl + 0.5 * cross) / 2
    expected += 2 * F.cross_entropy(logits, labels).item()
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_standardised_logits_are_compared_as_the_equation_says() -> None:
    """Each row minus its mean, over its deviation of K - 1, before the softmax; the gradient reaches the teacher."""
    task = teacher_and_branches(branch_logits="std", temperature=2.0).eval()
    images, labels = batch()
    terms = task(images, labels)
    logits, _, features, _ = task.teacher.activations(images)
    assert (logits.std(1) < 0.7).any(), "plain and standardised logits are alike"

    def odds(row: list[float]) -> list[float]:
        mean = sum(row) / len(row)
        deviation = (sum((value - mean) ** 2 for value in row) / (len(row) - 1)) ** 0.5
        powers = [math.exp((value - mean) / deviation / 2) for value in row]
        return [power / sum(powers) for power in powers]

    expected = 0.0
    for stage, branch in enumerate(task.branches):
        for theirs, ours in zip(logits.tolist(), branch(features[stage]).tolist()):
            expected += sum(p * math.log(p / q) for p, q in zip(odds(theirs), odds(ours))) * 2**2 / len(labels) / 2
    assert terms["branch_kl"].item() == pytest.approx(expected, rel=1e-4)
    loss = terms["ce"] + 3 * terms["branch_kl"] + terms["branch_ce"]
    torch.testing.assert_close(terms["loss"].detach(), loss)


def test_sum_is_mean_times_the_number_of_branches() -> None:
    images, labels = batch()
    terms = []
    for reduction in ("mean", "sum"):
        torch.manual_seed(0)
        terms.append(teacher_and_branches(reduction=reduction).eval()(images, labels))
    for name in ("branch_kl", "branch_ce"):
        assert terms[1][name].item() == pytest.approx(2 * terms[0][name].item(), rel=1e-6)
    assert terms[0]["ce"] == terms[1]["ce"]


def test_n_blocks_give_n_minus_1_branches_that_share_nothing() -> None:
    task = teacher_and_branches()
    assert len(task.branches) == 2
    assert [len(branch.stages) for branch in task.branches] == [2, 1]
    owners = [{id(p) for p in module.parameters()} for module in (task.teacher, *task.branches)]
    assert sum(len(owner) for owner in owners) == len(set.union(*owners))


@pytest.mark.parametrize(("branches", "stages"), [((1,), [2]), ((2,), [1]), ((1, 2), [2, 1])])
def test_branches_can_be_chosen(branches: tuple[int, ...], stages: list[int]) -> None:
    task = teacher_and_branches(branches=branches)
    assert [len(branch.stages) for branch in task.branches] == stages
    images, labels = batch()
    task(images, labels)["loss"].backward()
    assert all(p.grad is not None for p in task.branches.parameters())


def test_kl_reaches_the_teachers_classifier_unless_detached() -> None:
    images, labels = batch()
    for detach in (False, True):
        task = teacher_and_branches(teacher_ce=0.0, branch_ce=0.0, detach=detach)
        task(images, labels)["loss"].backward()
        assert (task.teacher.head.linear.weight.grad.abs().sum() > 0) is not detach  # type: ignore[union-attr]
        # The branch's side of the KL reaches the teacher's early blocks either way.
        assert task.teacher.stem.body[0].weight.grad.abs().sum() > 0  # type: ignore[index,union-attr]


def test_without_weights_of_branches_it_is_a_standard_teacher() -> None:
    images, labels = batch()
    task = teacher_and_branches(branch_kl=0.0, branch_ce=0.0)
    task(images, labels)["loss"].backward()
    grads = [p.grad.clone() for p in task.teacher.parameters()]  # type: ignore[union-attr]
    task.teacher.zero_grad()
    Supervised(task.teacher)(images, labels)["loss"].backward()
    for before, parameter in zip(grads, task.teacher.parameters()):
        torch.testing.assert_close(before, parameter.grad)


@pytest.mark.parametrize(
    ("teacher", "student", "kinds"),
    [
        ("resnet32x4", "resnet8x4", [("Conv2d", 1), ("Conv2d", 1)]),
        ("wrn_40_2", "wrn_16_2", [("Conv2d", 1), ("Conv2d", 1)]),
        ("vgg13", "vgg8", [("Conv2d", 1)] * 3),
        ("resnet32x4", "shufflev2", [("Conv2d", 3), ("Conv2d", 3)]),
        ("resnet32x4", "shufflev1", [("Conv2d", 3), ("Conv2d", 3)]),
        ("wrn_40_2", "shufflev1", [("Conv2d", 3), ("Conv2d", 3)]),
        ("resnet50", "vgg8", [("Conv2d", 3), ("Conv2d", 3), ("Conv2d", 3)]),
        ("resnet50", "mobilenetv2", [("Conv2d", 3), ("Conv2d", 3), ("Conv2d", 3)]),
        ("shufflev2", "resnet8x4", [("ConvTranspose2d", 4), ("ConvTranspose2d", 4)]),
    ],
)
def test_transforms_of_the_papers_pairs(teacher: str, student: str, kinds: list[tuple[str, int]]) -> None:
    big = build(teacher, 10)
    task = StudentBranches(big, lambda: build(student, 10), (3, 32, 32))
    found = [(type(b.transform[0]).__name__, b.transform[0].kernel_size[0]) for b in task.branches]  # type: ignore[index,union-attr]
    assert found == kinds
    with torch.no_grad():
        features = task.teacher.activations(torch.randn(2, 3, 32, 32)).features
        assert all(branch(f).shape == (2, 10) for branch, f in zip(task.branches, features))


def test_fresh_students_are_built_for_each_branch() -> None:
    task = StudentBranches(tiny.network((6, 8, 12)), tiny.network, tiny.IMAGE)
    first, second = (branch.head.linear.weight for branch in task.branches)  # type: ignore[union-attr]
    assert not torch.equal(first, second)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"branches": (3,)}, "branches"),
        ({"branches": ()}, "branches"),
        ({"temperature": 0}, "temperature"),
        ({"branch_kl": -1}, "weights"),
        ({"reduction": "max"}, "reduction"),
        ({"branch_logits": "raw"}, "choose plain or std"),
        ({"alignment": ((0, 7),)}, "stage"),
    ],
)
def test_wrong_options_are_one_line(options: dict[str, object], word: str) -> None:
    with pytest.raises(InputError, match=word) as caught:
        teacher_and_branches(**options)
    assert "\n" not in str(caught.value)


def test_logits_of_two_classes_are_not_standardised() -> None:
    with pytest.raises(InputError, match="leave branch_logits at plain"):
        StudentBranches(
            tiny.network((6, 8, 12), classes=2), lambda: tiny.network(classes=2), tiny.IMAGE, branch_logits="std"
        )


def test_other_numbers_of_stages_align_from_the_end() -> None:
    task = StudentBranches(tiny.network((6, 8, 12)), lambda: tiny.network((4, 4, 6, 8)), tiny.IMAGE)
    assert [len(branch.stages) for branch in task.branches] == [2, 1]
    images, labels = batch()
    assert torch.isfinite(task(images, labels)["loss"])


def test_a_teacher_of_several_students_averages_their_losses() -> None:
    images, labels = batch()
    students = [tiny.network, lambda: tiny.network((5, 7))]
    teacher = tiny.network((6, 8, 12))
    both = StudentBranches(teacher, students, tiny.IMAGE, teacher_ce=0.0)
    assert [len(branch.stages) for branch in both.branches] == [2, 1, 1]
    expected = 0.0
    for student, branches in zip(students, (both.branches[:2], both.branches[2:])):
        alone = StudentBranches(teacher, student, tiny.IMAGE, teacher_ce=0.0)
        alone.branches = branches  # the same weights
        expected += alone(images, labels)["loss"].item() / 2
    assert both(images, labels)["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_five_lines_of_your_own_loop_lower_the_loss() -> None:
    data = tiny.dataset()
    images, labels = data.train.images.float() / 128 - 1, data.train.labels
    friendly = StudentBranches(tiny.network((6, 8, 12)), tiny.network, tiny.IMAGE)
    optimizer = torch.optim.SGD(friendly.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(40):
        loss = friendly(images, labels)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
