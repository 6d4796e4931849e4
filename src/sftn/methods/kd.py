"""KD: the softened outputs of the teacher (Hinton et al., 2015, arXiv:1503.02531)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from sftn.errors import InputError
from sftn.methods.base import in_float32


@in_float32
def distillation_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 4.0) -> Tensor:
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

    Raises:
        InputError: the temperature is not positive.
    """
    if temperature <= 0:
        raise InputError(f"temperature {temperature} is not positive: give one above 0, such as 4")
    student = F.log_softmax(student_logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    return F.kl_div(student, teacher, log_target=True, reduction="batchmean") * temperature**2
