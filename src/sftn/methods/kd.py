"""KD: the softened outputs of the teacher (Hinton et al., 2015, arXiv:1503.02531)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from sftn.errors import InputError
from sftn.methods.base import in_float32
from sftn.methods.logits import standardised


@in_float32
def divergence(student: Tensor, teacher: Tensor, temperature: Tensor | float) -> Tensor:
    """KL(teacher ‖ student)·T² of the softmaxes of two (B, K), summed over K, the mean over the batch: a scalar."""
    ours, theirs = (F.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    return F.kl_div(ours, theirs, log_target=True, reduction="batchmean") * temperature**2


def distillation_loss(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 4.0, standardise: bool = False
) -> Tensor:
    """KL(teacher ‖ student)·T² of the softmaxes at temperature T, the mean over the batch: a scalar.

    KD is no `Method`: it stands in the objective, beside cross-entropy, where all methods are added to it. Gradients
    flow into both arguments, because a student-friendly teacher learns from its branches; detach the teacher's logits
    to distil a frozen one.

    Example:
        >>> loss = distillation_loss(student(images), teacher(images).detach(), temperature=4.0)

    Args:
        student_logits: (B, K)
        teacher_logits: (B, K)
        temperature: T; 4 in RepDistiller, 1 for the branches of a student-friendly teacher.
        standardise: compare standardised logits (arXiv:2403.01427), usually at T = 2.

    Raises:
        InputError: the temperature is not positive.
    """
    if temperature <= 0:
        raise InputError(f"temperature {temperature} is not positive: give one above 0, such as 4")
    if standardise:
        student_logits, teacher_logits = standardised(student_logits), standardised(teacher_logits)
    return divergence(student_logits, teacher_logits, temperature)
