"""CRD: one image's two embeddings against those of other classes (Tian et al., 2020, arXiv:1910.10699)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sftn.data.batch import Batch
from sftn.errors import InputError
from sftn.methods.base import Method, in_float32, require_positive
from sftn.networks.alignment import Pair
from sftn.networks.staged import Activations
from sftn.runtime.collectives import gathered

EPS = 1e-7
"""Added to the noise term m/N, as HobbitLong/RepDistiller does."""
LIMIT = 2**23
"""How many numbers (32 MiB of float32) a temporary that grows with N or with the negatives may hold."""
SAME = 192
"""Terms up to which the two libraries behind `_product` sum in the same order."""


class CRD(Method):
    """Tell the teacher's embedding of an image from those of many images of other classes, and the reverse.

    Contrastive representation distillation (arXiv:1910.10699). Reads the embeddings, (B, D) and (B, D'), the labels and
    the index. Both embeddings are projected to `dimensions` and L2-normalised. The student's is the anchor against a
    bank with the teacher's projections of all training images, and the teacher's against a bank with the student's. The
    loss is the paper's NCE objective, summed over both sides. All of it is computed in float32.

    The two banks, (N, dimensions) each, follow their images with `momentum` after the scores have been taken, while
    the method is in training mode. `Z_student` and `Z_teacher` are the normalisation constants, set by the first step
    (-1 before it). The positive of an image is the image itself; its negatives are drawn here, uniformly among the
    images of other classes: the labels must be those of `pair.labels` at `batch.index`.

    Deviations: RepDistiller's data set draws without replacement whenever a class leaves enough images; the default
    here is with, which is cheaper. An index that appears twice in a batch moves its row once, by its last occurrence,
    where an index copy does not say which one wins. Several processes gather their embeddings, so that each has both
    banks, and the same ones as long as their random numbers are the same.

    Example:
        >>> method = CRD(pair, negatives=32)
        >>> loss = method(student.activations(images), teacher.activations(images), batch)

    Args:
        pair: needs `labels`.
        dimensions: of the projections.
        negatives: drawn for each image.
        temperature: of the scores; its inverse must stay below 80 for exp to stay within float32.
        momentum: how much of a bank's row stays when its image is seen. RepDistiller keeps both as float32; so they are
            rounded to it here, which shows in float64 only (a relative 4e-9 of the loss).
        replacement: whether an image may be drawn twice as a negative of the same image. Without, N random keys are
            drawn for each image of the batch, so time grows with B·N; memory stays within `LIMIT`.

    Raises:
        InputError: there are no labels, one class holds all images, or, without replacement, a class leaves fewer
            than `negatives` images of other classes, or an option is out of range.
    """

    summary = "Contrastive Representation Distillation (Tian et al., ICLR 2020)"
    reads = "the embeddings, the labels and the number of training images"
    source = "RepDistiller"
    kd = 0.0
    weight = 0.8
    teacher_outputs = ("embedding",)
    needs_index = True
    embed_student: nn.Linear
    embed_teacher: nn.Linear
    memory_student: Tensor
    memory_teacher: Tensor
    Z_student: Tensor
    Z_teacher: Tensor
    order: Tensor
    starts: Tensor
    counts: Tensor

    def __init__(
        self,
        pair: Pair,
        dimensions: int = 128,
        negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
        replacement: bool = True,
    ) -> None:
        super().__init__(pair)
        require_positive("crd", dimensions=dimensions, negatives=negatives, temperature=temperature)
        if not 0 <= momentum <= 1:
            raise InputError(f"crd's momentum is {momentum}: give a share between 0 and 1")
        counts = _class_counts(pair, negatives, replacement)
        self.negatives, self.replacement = negatives, replacement
        self.temperature, self.momentum = float(np.float32(temperature)), float(np.float32(momentum))
        self.embed_student = nn.Linear(pair.student.embedding, dimensions)
        self.embed_teacher = nn.Linear(pair.teacher.embedding, dimensions)
        bound = 1 / math.sqrt(dimensions / 3)
        for side in ("student", "teacher"):
            self.register_buffer(f"memory_{side}", torch.empty(len(pair.labels), dimensions).uniform_(-bound, bound))
            self.register_buffer(f"Z_{side}", torch.tensor(-1.0))
        # Sorted by class, "every image but those of class c" is everything but one contiguous block.
        self.register_buffer("order", pair.labels.argsort(stable=True), persistent=False)
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("starts", counts.cumsum(0) - counts, persistent=False)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """The contrastive loss of both sides; in training mode the banks then move, without gradient."""
        ours = gathered(embed(student.embedding, self.embed_student.weight, self.embed_student.bias))
        theirs = gathered(embed(teacher.embedding.detach(), self.embed_teacher.weight, self.embed_teacher.bias))
        index, labels = gathered(batch.index), gathered(batch.labels)
        columns = torch.cat([index.unsqueeze(1), self.draw(labels)], dim=1)
        how: dict[str, Any] = {"temperature": self.temperature, "reorder": torch.is_autocast_enabled(ours.device.type)}
        loss_student, Z_student = contrast(ours, self.memory_teacher, columns, self.Z_student, **how)
        loss_teacher, Z_teacher = contrast(theirs, self.memory_student, columns, self.Z_teacher, **how)
        if self.training:
            self.Z_student.copy_(Z_student)
            self.Z_teacher.copy_(Z_teacher)
            update(self.memory_student, index, ours, self.momentum)
            update(self.memory_teacher, index, theirs, self.momentum)
        return loss_student + loss_teacher

    def draw(self, labels: Tensor) -> Tensor:
        """(B,) labels -> (B, negatives) indices of training images of other classes, uniform, without a host sync.

        With replacement, 63 random bits modulo the number of others: no image's probability is off by more than a
        factor of N/2^63. Without, the images with the smallest of N random keys of 53 bits.
        """
        start, count = self.starts[labels].unsqueeze(1), self.counts[labels].unsqueeze(1)
        others = len(self.order) - count
        if self.replacement:
            rank = torch.randint(2**63 - 1, (len(labels), self.negatives), device=labels.device).remainder_(others)
        else:
            rows = max(1, LIMIT // 2 // len(self.order))
            rank = torch.cat([_smallest_keys(o, len(self.order), self.negatives) for o in others.split(rows)])
        rank.addcmul_((rank >= start).to(rank.dtype), count)
        return self.order.index_select(0, rank.flatten()).view_as(rank)


@in_float32
def embed(embedding: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(B, C) -> (B, D): projected to the unit sphere."""
    return F.normalize(F.linear(embedding.to(weight.dtype), weight, bias))


@in_float32
def contrast(
    anchor: Tensor,
    bank: Tensor,
    columns: Tensor,
    Z: Tensor,
    temperature: float,
    product: bool | None = None,
    reorder: bool = False,
) -> tuple[Tensor, Tensor]:
    """One side of the loss.

    With P = exp(anchor · bank row / temperature) / Z and c = m/N + eps, it is the mean over the batch of
    -log P/(P + c) for the positive plus the sum of -log (m/N)/(P + c) over the m negatives.

    Args:
        anchor: (B, D), L2-normalised; the gradient goes here and nowhere else.
        bank: (N, D), may change as soon as this has returned.
        columns: (B, 1 + m) rows of the bank: the positive, then the negatives.
        Z: scalar; if negative, mean(P·Z)·N of these scores takes its place, as a constant.
        temperature: of the scores.
        product: which way to compute the scores; None for the one that moves fewer bytes.
        reorder: whether long sums may be taken in another order than float32 runs always have, which is faster.

    Returns:
        The loss and the Z that was used, both scalars.
    """
    if product is None:
        product = product_moves_less(anchor, bank, columns)
    return _Contrast.apply(anchor, bank, columns, Z, temperature, product, reorder)


class _Contrast(torch.autograd.Function):
    # The gradient is as cheap as the loss once P is there. Computing it at once leaves only (B, D) to keep for the
    # backward, instead of (B, 1 + m), (B, N) and a copy of a bank that is about to change.
    @staticmethod
    def forward(
        ctx: Any,
        anchor: Tensor,
        bank: Tensor,
        columns: Tensor,
        Z: Tensor,
        temperature: float,
        product: bool,
        reorder: bool,
    ) -> tuple[Tensor, Tensor]:
        batch, images = len(anchor), len(bank)
        noise = (columns.shape[1] - 1) / images
        ratio = scores(anchor, bank, columns, product, reorder).div_(temperature).exp_()
        Z = torch.where(Z < 0, ratio.mean() * images, Z).to(Z.dtype)
        ratio.div_(Z * (noise + EPS))
        loss = torch.log1p(1 / ratio[:, 0]).sum() + torch.log1p(ratio[:, 1:]).sum()
        loss = loss / batch + noise * images * math.log1p(EPS / noise)
        if ctx.needs_input_grad[0]:
            slope = ratio.div_(1 + ratio)
            slope[:, 0] -= 1
            ctx.save_for_backward(pull(slope.div_(temperature * batch), bank, columns, product, reorder))
        ctx.mark_non_differentiable(Z)
        return loss, Z

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return grads[0] * slope, None, None, None, None, None, None


def product_moves_less(anchor: Tensor, bank: Tensor, columns: Tensor) -> bool:
    """Whether one product with the whole bank and a gather of columns moves fewer bytes than a gather of the rows.

    The product reads N·D numbers and writes and reads B·N; gathered rows are read, written and read: 3·B·M·D.
    """
    (batch, dimensions), images, drawn = anchor.shape, len(bank), columns.shape[1]
    return images * dimensions + 2 * batch * images <= 3 * batch * drawn * dimensions


def scores(anchor: Tensor, bank: Tensor, columns: Tensor, product: bool, reorder: bool = False) -> Tensor:
    """(B, D), (N, D), (B, M) -> (B, M): the inner product of each anchor with its rows of the bank."""
    rows = _rows(bank, columns, product)
    parts = zip(anchor.split(rows), columns.split(rows))
    if product:
        return _joined([_product(part, bank, reorder).gather(1, column) for part, column in parts])
    return _joined([(bank[column] @ part.unsqueeze(2)).squeeze(2) for part, column in parts])


def pull(slope: Tensor, bank: Tensor, columns: Tensor, product: bool, reorder: bool = False) -> Tensor:
    """(B, M), (N, D), (B, M) -> (B, D): the gradient of `scores` with respect to the anchor."""
    rows = _rows(bank, columns, product)
    parts = zip(slope.split(rows), columns.split(rows))
    if product:
        spread = ((slope.new_zeros(len(part), len(bank)).scatter_add_(1, column, part)) for part, column in parts)
        return _joined([_product(part, bank.T, reorder) for part in spread])
    return _joined([(part.unsqueeze(1) @ bank[column]).squeeze(1) for part, column in parts])


def _product(a: Tensor, b: Tensor, reorder: bool) -> Tensor:
    """(B, D), (N, D) -> (B, N): a @ b.T, on a CPU by oneDNN where that gives the same bits, or `reorder` allows others.

    MKL, which @ uses there, takes twice as long on an AMD processor: 12.8 ms instead of 5.3 for 64 rows of 128 numbers
    and a bank of 50,000, by one thread.
    """
    same = reorder or a.shape[1] <= SAME
    if same and a.device.type == "cpu" and a.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    return a @ b.T


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@torch.no_grad()
def update(bank: Tensor, index: Tensor, rows: Tensor, momentum: float) -> None:
    """Move rows `index` of the bank towards `rows`, (B, D), in place, and normalise them; the last of equals counts."""
    position = torch.arange(len(index), device=index.device)
    last = (position * (index.unsqueeze(1) == index)).amax(1)
    moved = momentum * bank[index] + (1 - momentum) * rows[last].to(bank.dtype)
    bank.index_copy_(0, index, F.normalize(moved))


def _rows(bank: Tensor, columns: Tensor, product: bool) -> int:
    return max(1, LIMIT // (len(bank) if product else columns.shape[1] * bank.shape[1]))


def _smallest_keys(others: Tensor, images: int, negatives: int) -> Tensor:
    keys = torch.rand(len(others), images, dtype=torch.float64, device=others.device)
    keys.masked_fill_(torch.arange(images, device=others.device) >= others, 2)
    return keys.topk(negatives, dim=1, largest=False, sorted=False).indices


def _class_counts(pair: Pair, negatives: int, replacement: bool) -> Tensor:
    images = len(pair.labels)
    if images == 0:
        raise InputError("CRD needs the labels of the training images: give them to the pair, or choose another method")
    counts = torch.bincount(pair.labels, minlength=pair.classes)
    largest = int(counts.argmax())
    others = images - int(counts[largest])
    if others == 0:
        raise InputError(
            f"CRD finds no negatives: all {images} training images are of class {largest}: "
            "give images of at least two classes, or choose another method"
        )
    if not replacement and others < negatives:
        raise InputError(
            f"CRD cannot draw {negatives} negatives without replacement: class {largest} leaves {others} images "
            f"of other classes: set negatives to at most {others}, or replacement to true"
        )
    return counts
