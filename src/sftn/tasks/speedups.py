"""Speedups of a task's training steps that do not change what it learns; applied before training."""

from __future__ import annotations

import torch
from torch import nn

from sftn.networks.fast.channels_last_grad import keep_layout
from sftn.networks.fast.depthwise_grad import use_strided_depthwise
from sftn.networks.fast.product_choices import Choices, use_products
from sftn.runtime.device import HALVES
from sftn.tasks.distillation import Distiller


def speed_up(
    task: nn.Module, precision: str, choices: Choices | None = None, *, fast_float32: bool = False
) -> tuple[str, ...]:
    """Fold a frozen teacher, compute depthwise and small convolutions faster, keep gradients channels-last.

    In float32 nothing is done unless `fast_float32` is given, so that results stay the same bit for bit. Call it before
    the task's phases are made, because first stages use the teacher as well.

    Args:
        task: a `Distiller`, `StudentBranches`, `Supervised` or other task.
        precision: float32, bf16 or float16.
        choices: which convolutions are computed as matrix products; None chooses what is faster on this machine.
        fast_float32: fold and compute faster in float32, too; results then differ by rounding.

    Returns:
        The applied speedups, in a few words each, for the record of the run's environment.
    """
    if precision not in HALVES and not fast_float32:
        return ()
    done, choices = [], Choices() if choices is None else choices
    if isinstance(task, Distiller):
        task.fold_teacher(HALVES.get(precision, torch.float32), choices)
        done.append("teacher folded" if task.foldable else "teacher's weights kept in " + precision)
    if use_strided_depthwise(task):
        done.append("strided depthwise gradients in float32")
    if use_products(task, choices):
        done.append("convolutions on small maps as matrix products")
    if keep_layout(task):
        done.append("gradients as their maps in memory")
    return tuple(done)
