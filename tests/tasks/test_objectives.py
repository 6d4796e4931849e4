"""Everything that a step minimises, cross-entropy and schedules included, as the repositories have it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sftn.methods import CTKD
from sftn.networks.staged import StagedNet, Tap
from sftn.tasks.distillation import Distiller
from sftn.tasks.recipes import objective
from tests.support import golden_methods as golden

TEXTS = {
    "kd": "kd",
    "lskd": "kd@std",
    "dkd": "dkd",
    "dkd_lskd": "dkd@std",
    "dist": "dist",
    "nkd": "nkd",
    "ctkd": "ctkd(start=-1)",
    "wkd_l": "wkd-l",
}
"""The names that stand for them; all are for resnet32x4 to resnet8x4."""


class Same(nn.Module):
    def forward(self, flow: Tensor) -> Tap:
        return Tap(flow, flow, flow)


class Given(nn.Module):
    """A head that answers with given logits."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.linear = nn.Linear(4, logits.shape[1])  # wkd-l looks for it, and is given other costs

    def forward(self, flow: Tensor) -> tuple[Tensor, Tensor]:
        return flow.mean((2, 3)), self.logits + 0 * flow.mean()


def answering(logits: Tensor) -> StagedNet:
    return StagedNet(Same(), [Same()], Given(logits), "given")


@pytest.mark.parametrize("dtype", golden.DTYPES)
@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("case", golden.NEWER)
def test_golden(case: str, name: str, dtype: torch.dtype) -> None:
    values = golden.newer(case, "objectives", dtype)
    student, teacher = (answering(values[f"{role}_logits"]) for role in ("student", "teacher"))
    task = Distiller(student, teacher, objective(TEXTS[name]), (4, 8, 8)).to(dtype)
    task.set_epoch(int(values["epoch"]) - 1, 240)
    for method in task.methods.values():
        if name == "wkd_l":
            method.cost.copy_(values["cost"])  # type: ignore[operator, union-attr]
        if isinstance(method, CTKD):
            assert method.parameter == values["ctkd_parameter"]
    size = len(values["labels"])
    loss = task(torch.zeros(size, 4, 8, 8, dtype=dtype), values["labels"])["loss"]
    loss.backward()
    golden.assert_golden(loss, values[name], dtype)
    golden.assert_golden(student.head.logits.grad, values[f"grad_{name}"], dtype)  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("case", golden.NEWER)
def test_until_the_epoch_is_told_weights_are_whole(case: str) -> None:
    values = golden.newer(case, "objectives")
    student, teacher = (answering(values[f"{role}_logits"]) for role in ("student", "teacher"))
    task = Distiller(student, teacher, objective("dkd"), (4, 8, 8)).double()
    size = len(values["labels"])
    terms = task(torch.zeros(size, 4, 8, 8, dtype=torch.float64), values["labels"])
    torch.testing.assert_close(terms["loss"].detach(), terms["ce"] + terms["dkd"])
    task.set_epoch(0, 240)
    first = task(torch.zeros(size, 4, 8, 8, dtype=torch.float64), values["labels"])
    torch.testing.assert_close(first["loss"].detach(), terms["ce"] + terms["dkd"] / 20)
