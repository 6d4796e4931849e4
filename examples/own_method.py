"""Your own distillation method, from the loss to a row in the table: `python examples/own_method.py`."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from sftn.cli import main
from sftn.methods import METHODS, Batch, Method
from sftn.methods.base import in_float32
from sftn.networks.staged import Activations


@in_float32
def cosine_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine of the angle between the networks' centred logits, (B, K) each; mean over the batch."""
    ours, theirs = (logits - logits.mean(1, keepdim=True) for logits in (student, teacher))
    return 1 - F.cosine_similarity(ours, theirs, dim=1).mean()


class Cosine(Method):
    """Make the student's logits point where the teacher's point, whatever their length."""

    summary = "an example"
    reads = "logits"

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """The loss, a scalar."""
        return cosine_loss(student.logits, teacher.logits)


METHODS["cosine"] = Cosine

if __name__ == "__main__":
    main(["compare", "--methods", "kd", "cosine", "cosine:5+kd", "--limit", "200", "--epochs", "5", "--seeds", "2"])
