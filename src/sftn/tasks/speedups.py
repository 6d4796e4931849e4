"""Speedups of a task's training steps that do not change what it learns; applied before training."""

from __future__ import annotations

from torch import nn

from sftn.networks.fast.channels_last_grad import keep_layout
from sftn.networks.fast.depthwise_grad import use_strided_depthwise
from sftn.runtime.device import HALVES
from sftn.tasks.distillation import Distiller


def speed_up(task: nn.Module, precision: str) -> tuple[str, ...]:
    """Fold a frozen teacher, speed up depthwise convolutions, keep gradients channels-last: in bf16 and float16 only.

    In float32 nothing is done, so that results stay the same bit for bit; `Distiller.fold_teacher` works there too.
    Call it before the task's phases are made, because first stages use the teacher as well.

    Args:
        task: a `Distiller`, `StudentBranches`, `Supervised` or other task.
        precision: float32, bf16 or float16.

    Returns:
        The applied speedups, in a few words each, for the record of the run's environment.
    """
    if precision not in HALVES:
        return ()
    done = []
    if isinstance(task, Distiller):
        task.fold_teacher(HALVES[precision])
        done.append("teacher folded" if task.foldable else "teacher's weights kept in " + precision)
    if use_strided_depthwise(task):
        done.append("strided depthwise gradients in float32")
    if keep_layout(task):
        done.append("gradients as their maps in memory")
    return tuple(done)
