"""Every pair of the paper takes a step: as a student-friendly teacher, by KD, by FitNet and by OH."""

from __future__ import annotations

import pytest
import torch

from sftn.networks import build
from sftn.tasks.distillation import Distiller
from sftn.tasks.recipes import objective
from sftn.tasks.student_branches import StudentBranches

SMALL = (3, 32, 32)
LARGE = (3, 64, 64)

PAIRS = [
    ("wrn_40_2", "wrn_16_2", SMALL),
    ("wrn_40_2", "wrn_40_1", SMALL),
    ("wrn_40_2", "shufflev2", SMALL),
    ("resnet32x4", "resnet8x4", SMALL),
    ("resnet32x4", "resnet8x2", SMALL),
    ("resnet32x4", "shufflev1", SMALL),
    ("resnet32x4", "shufflev2", SMALL),
    ("vgg13", "vgg8", SMALL),
    ("resnet50", "vgg8", SMALL),
    *((teacher, "mobilenetv2", SMALL) for teacher in ("resnet18", "resnet34", "resnet50")),
    pytest.param("resnet101", "mobilenetv2", SMALL, marks=pytest.mark.slow),
    pytest.param("resnet152", "mobilenetv2", SMALL, marks=pytest.mark.slow),
    pytest.param("imagenet_resnet50", "imagenet_resnet34", LARGE, marks=pytest.mark.slow),
]
"""Tables 11 to 19, and the ImageNet pair."""


@pytest.mark.parametrize(("teacher", "student", "image"), PAIRS)
def test_a_step_of_every_kind(teacher: str, student: str, image: tuple[int, int, int]) -> None:
    big = build(teacher, 10, image=image)
    images, labels = torch.randn(2, *image), torch.tensor([0, 3])
    friendly = StudentBranches(big, lambda: build(student, 10, image=image), image)
    friendly(images, labels)["loss"].backward()
    assert all(parameter.grad is not None for parameter in friendly.parameters())
    assert len(friendly.branches) == len(big.stages) - 1

    for method in ("kd", "fitnet", "oh"):
        small = build(student, 10, image=image)
        task = Distiller(small, big, objective(method), image)
        terms = task(images, labels)
        assert torch.isfinite(terms["loss"])
        terms["loss"].backward()
        assert all(torch.isfinite(p.grad).all() for p in small.parameters() if p.grad is not None)
        assert small.stem.body[0].weight.grad.abs().sum() > 0  # type: ignore[index,union-attr]
