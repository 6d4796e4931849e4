"""RKD: distances and angles between the images of a batch (Park et al., 2019, arXiv:1904.05068)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sftn.data.batch import Batch
from sftn.methods.base import Method, in_float32, require_positive
from sftn.networks.alignment import Pair
from sftn.networks.staged import Activations
from sftn.runtime.collectives import gathered

MEMORY = 2**24
"""How many numbers of a chunk of angles may stand in memory at once; 64 images of 2048 numbers make one chunk."""


def distances(rows: Tensor) -> Tensor:
    """(B, D) -> (B, B) Euclidean distances in units of their mean over pairs of different rows.

    Rows nearer than 1e-6 count as that far apart and pass no gradient.
    """
    # Not the faster |a|² + |b|² - 2ab, which cannot tell near rows from equal ones.
    plain = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").clamp_min(1e-6)
    plain = plain.masked_fill(torch.eye(len(rows), dtype=torch.bool, device=rows.device), 0)
    pairs = len(rows) * (len(rows) - 1)
    return plain / (plain.sum() / max(pairs, 1)).clamp_min(1e-6)


def angles(rows: Tensor, anchors: Tensor) -> Tensor:
    """(B, D) and (A,) indices -> (A, B, B): cosines of the angles between pairs of rows, seen from each anchor."""
    edges = rows - rows[anchors, None]
    length = torch.linalg.vector_norm(edges, dim=2, keepdim=True)
    # Divided by infinity, rows that coincide give zero and no gradient of the size 1/0.
    edges = edges / length.where(length > 1e-12, torch.inf)
    return edges @ edges.mT


def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss of the relative distances, the mean over B² pairs."""
    return F.smooth_l1_loss(distances(student), distances(teacher))


def angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss of the angles' cosines, the mean over B³ triplets; large batches go chunk by chunk."""

    def chunk(student: Tensor, teacher: Tensor, anchors: Tensor) -> Tensor:
        return F.smooth_l1_loss(angles(student, anchors), angles(teacher, anchors), reduction="sum")

    count = len(student)
    step = max(1, MEMORY // (count * max(count, student.shape[1], teacher.shape[1])))
    chunks = torch.arange(count, device=student.device).split(step)
    if len(chunks) == 1:
        return chunk(student, teacher, chunks[0]) / count**3
    # Recomputed in the backward pass: B³ numbers never stand in memory together.
    # No random number is drawn in a chunk; to look at their state would be an error while a step is captured.
    again = partial(checkpoint, chunk, student, teacher, use_reentrant=False, preserve_rng_state=False)
    parts = [again(anchors) for anchors in chunks]
    return torch.stack(parts).sum() / count**3


@in_float32
def relational_loss(student: Tensor, teacher: Tensor, distance: float = 25.0, angle: float = 50.0) -> Tensor:
    """The weighted sum of both losses for a (B, D) and a (B, D') embedding; zero for a batch of one."""
    return distance * distance_loss(student, teacher) + angle * angle_loss(student, teacher)


class RKD(Method):
    """Relational knowledge distillation (arXiv:1904.05068) of the embeddings: RKD-D and RKD-A together.

    Reads the embeddings, (B, D) and (B, D').

    Deviation, of the authors' code and RepDistiller too: the means run over all pairs and triplets, also those of an
    image with itself. The weights are the paper's for classification, 25 times those of the authors' scripts.

    Example:
        >>> method = RKD(pair, distance=25.0, angle=50.0)
        >>> loss = method(student.activations(images), teacher.activations(images), batch)

    Args:
        pair: the networks; embeddings of any width.
        distance: weight of the distances.
        angle: weight of the angles.

    Raises:
        InputError: a weight is negative.
    """

    summary = "Relational Knowledge Distillation (Park et al., CVPR 2019)"
    reads = "the embedding"
    source = "RepDistiller"
    teacher_outputs = ("embedding",)

    def __init__(self, pair: Pair, *, distance: float = 25.0, angle: float = 50.0) -> None:
        super().__init__(pair)
        require_positive("rkd", zero=True, distance=distance, angle=angle)
        self.distance = distance
        self.angle = angle

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Both losses, weighted: a scalar."""
        ours, theirs = gathered(student.embedding), gathered(teacher.embedding.detach())
        return relational_loss(ours, theirs, self.distance, self.angle)
