from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sftn.networks import build
from sftn.networks.families.shufflenet import Growing, Split
from sftn.networks.fast.channels_last_grad import keep_layout
from sftn.networks.fast.depthwise_grad import StridedDepthwise
from sftn.networks.fast.inference_folding import Convolution
from sftn.spec.schedule import Schedule
from sftn.tasks.distillation import Distiller
from sftn.tasks.recipes import objective
from sftn.tasks.speedups import speed_up
from sftn.tasks.supervised import Supervised
from tests.support import tiny

ALWAYS = ("convolutions on small maps as matrix products", "gradients as their maps in memory")
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
    assert speed_up(task, "float32") == ()
    assert task.teacher is teacher
    assert kinds(task) == before
    assert not any(module._forward_hooks for module in task.modules())


def test_float32_is_prepared_where_it_is_asked_for() -> None:
    task = distiller("kd")
    assert speed_up(task, "float32", fast_float32=True) == ("teacher folded", *ALWAYS)
    assert Convolution in kinds(task.teacher)
    assert next(task.teacher.parameters()).dtype == torch.float32


def test_bf16_folds_the_teacher_also_for_first_stages() -> None:
    task = distiller("ab")
    assert speed_up(task, "bf16") == ("teacher folded", *ALWAYS)
    assert Convolution in kinds(task.teacher)
    assert Convolution not in kinds(task.student)
    first = task.phases(Schedule(epochs=2))[0]
    assert Convolution in kinds(first.task)


def test_a_teacher_that_normalises_by_the_batch_is_not_folded() -> None:
    task = distiller("oh")
    assert speed_up(task, "bf16") == ("teacher's weights kept in bf16", *ALWAYS)
    assert Convolution not in kinds(task.teacher)
    assert next(task.teacher.parameters()).dtype == torch.bfloat16


def test_depthwise_networks_are_sped_up_whatever_the_task() -> None:
    task = Supervised(build("shufflev2", 10))
    assert speed_up(task, "bf16") == ("strided depthwise gradients in float32", *ALWAYS)
    assert sum(type(module) is StridedDepthwise for module in task.modules()) == 6


@pytest.mark.parametrize("method", ["kd", "at", "crd", "ft"])
def test_a_prepared_step_learns_what_the_plain_one_does(method: str) -> None:
    plain = distiller(method)
    quick = copy.deepcopy(plain)
    speed_up(quick, "bf16")
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


class Layouts(TorchDispatchMode):
    """Collects which gradients of maps reach the backward operations of `keep_layout`'s modules channels-last."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name.endswith("_backward") and any(word in name for word in ("batch_norm", "threshold", "avg_pool")):
            self.seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["shufflev1", "shufflev2"])
def test_gradients_of_concatenations_and_pools_are_made_channels_last(name: str) -> None:
    torch.manual_seed(0)
    plain = Supervised(build(name, 10)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    quick, keys = copy.deepcopy(plain), list(plain.state_dict())
    assert keep_layout(quick) > 0
    assert list(quick.state_dict()) == keys
    assert kinds(quick) == kinds(plain)
    images = torch.randn(4, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    seen = []
    for task in (plain, quick):
        with torch.autocast("cpu", torch.bfloat16):
            loss = task(images, torch.arange(4), torch.arange(4))["loss"]
        with Layouts() as layouts:
            loss.backward()
        seen.append(layouts.seen)
    assert not all(seen[0])
    assert all(seen[1])


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "kept": lambda: Split(16, 16),
    "both": lambda: Split(8, 16),
    "pooled": lambda: Growing(Split(8, 16).right),
}


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize(("half", "tolerance"), [(False, 0.0), (True, 1e-2)])
def test_the_layout_of_gradients_changes_their_rounding_only(name: str, half: bool, tolerance: float) -> None:
    torch.manual_seed(0)
    images = torch.randn(4, 16 if name == "kept" else 8, 8, 8).contiguous(memory_format=torch.channels_last)
    block, outcomes = BLOCKS[name](), []
    for prepared in (False, True):
        module, given = copy.deepcopy(block), images.clone().requires_grad_()
        if prepared:
            keep_layout(module)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = module(given)
        (out.float() ** 3).mean().backward()
        assert given.grad is not None
        # All weights together: the bias of a norm that another norm follows has no gradient but rounding.
        gradients = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
        outcomes.append([out.float(), given.grad, gradients])
    for theirs, ours in zip(*outcomes):
        assert (theirs - ours).norm() <= tolerance * theirs.norm()


def test_fold_teacher_in_float32_changes_rounding_only() -> None:
    plain = distiller("kd")
    quick = copy.deepcopy(plain)
    quick.fold_teacher()
    images, labels = torch.randn(16, *tiny.IMAGE), LABELS[:16]
    torch.testing.assert_close(quick(images, labels)["kd"], plain(images, labels)["kd"], rtol=1e-5, atol=1e-6)
