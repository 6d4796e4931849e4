from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sftn.distill import Distiller
from sftn.fit import Schedule
from sftn.networks import build
from sftn.networks.depthwise import StridedDepthwise
from sftn.networks.folding import Convolution
from sftn.prepare import prepare_step
from sftn.recipes import objective
from sftn.teacher import Supervised
from tests import tiny

LABELS = torch.arange(32) % tiny.CLASSES


def distiller(method: str) -> Distiller:
    torch.manual_seed(0)
    student, teacher = tiny.network(), tiny.network((6, 8, 12))
    return Distiller(student, teacher, objective(method), tiny.IMAGE, labels=LABELS)


def kinds(network: nn.Module) -> set[type[nn.Module]]:
    return {type(module) for module in network.modules()}


def test_float32_is_left_alone() -> None:
    task = distiller("kd")
    teacher, before = task.teacher, kinds(task)
    assert prepare_step(task, "float32") == ()
    assert task.teacher is teacher
    assert kinds(task) == before


def test_bf16_folds_the_teacher_also_for_first_stages() -> None:
    task = distiller("ab")
    assert prepare_step(task, "bf16") == ("teacher folded",)
    assert Convolution in kinds(task.teacher)
    assert Convolution not in kinds(task.student)
    first = task.phases(Schedule(epochs=2))[0]
    assert Convolution in kinds(first.task)


def test_a_teacher_that_normalises_by_the_batch_is_not_folded() -> None:
    task = distiller("oh")
    assert prepare_step(task, "bf16") == ("teacher's weights kept in bf16",)
    assert Convolution not in kinds(task.teacher)
    assert next(task.teacher.parameters()).dtype == torch.bfloat16


def test_depthwise_networks_are_quickened_whatever_the_task() -> None:
    task = Supervised(build("shufflev2", 10))
    assert prepare_step(task, "bf16") == ("strided depthwise gradients in float32",)
    assert sum(type(module) is StridedDepthwise for module in task.modules()) == 6


@pytest.mark.parametrize("method", ["kd", "at", "crd", "ft"])
def test_a_prepared_step_learns_what_the_plain_one_does(method: str) -> None:
    plain = distiller(method)
    quick = copy.deepcopy(plain)
    prepare_step(quick, "bf16")
    images = torch.randn(16, *tiny.IMAGE)
    gradients = []
    for task in (plain, quick):
        torch.manual_seed(1)
        task.train().requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16):
            terms = task(images, LABELS[:16], torch.arange(16))
        terms["loss"].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in task.student.parameters() if p.grad is not None]))
    usual, ours = gradients
    assert (usual - ours).norm() < 0.05 * usual.norm()


def test_fold_teacher_in_float32_changes_rounding_only() -> None:
    plain = distiller("kd")
    quick = copy.deepcopy(plain)
    quick.fold_teacher()
    images, labels = torch.randn(16, *tiny.IMAGE), LABELS[:16]
    torch.testing.assert_close(quick(images, labels)["kd"], plain(images, labels)["kd"], rtol=1e-5, atol=1e-6)
