"""PKT: the odds that one image picks another as its neighbour (Passalis & Tefas, 2018, arXiv:1803.10837)."""

from __future__ import annotations

import torch
from torch import Tensor

from sftn.data.batch import Batch
from sftn.methods.base import Method, in_float32, require_positive
from sftn.networks.alignment import Pair
from sftn.networks.staged import Activations
from sftn.runtime.collectives import gathered


def neighbours(rows: Tensor, eps: float) -> Tensor:
    """(B, D) -> (B, B): cosine similarities shifted into 0..1, each row summing to 1."""
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    # Divided by infinity, a row that is all zero stays zero and gets no gradient of the size 1/eps.
    unit = rows / (length + eps).where(length > 0, torch.inf)
    similarity = (unit @ unit.T + 1) / 2
    return similarity / similarity.sum(1, keepdim=True)


@in_float32
def transfer_loss(student: Tensor, teacher: Tensor, eps: float = 1e-7) -> Tensor:
    """KL(teacher ‖ student) of the neighbours' probabilities, the mean over B² pairs where the paper has the sum.

    Args:
        student: (B, D)
        teacher: (B, D')
        eps: keeps lengths and probabilities from zero.
    """
    theirs = neighbours(teacher, eps)
    return (theirs * ((theirs + eps) / (neighbours(student, eps) + eps)).log()).mean()


class PKT(Method):
    """Probabilistic knowledge transfer (arXiv:1803.10837) between the embeddings, with the cosine kernel.

    Reads the embeddings, (B, D) and (B, D').

    Deviations, of the authors' code and RepDistiller too: each image also counts as its own neighbour, and the
    divergence is a mean over B² pairs where the paper has the sum.

    Example:
        >>> method = PKT(pair)
        >>> loss = method(student.activations(images), teacher.activations(images), batch)

    Args:
        pair: the networks; embeddings of any width.
        eps: keeps lengths and probabilities from zero.

    Raises:
        InputError: `eps` is not positive.
    """

    summary = "Learning Deep Representations with Probabilistic Knowledge Transfer (Passalis & Tefas, ECCV 2018)"
    reads = "the embedding"
    source = "RepDistiller"
    weight = 30000.0
    teacher_outputs = ("embedding",)

    def __init__(self, pair: Pair, *, eps: float = 1e-7) -> None:
        super().__init__(pair)
        require_positive("pkt", eps=eps)
        self.eps = eps

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """The divergence, a scalar."""
        return transfer_loss(gathered(student.embedding), gathered(teacher.embedding.detach()), self.eps)
