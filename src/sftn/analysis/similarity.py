"""Similarity of a teacher and its student (Tables 9 and 19): KL divergence, linear CKA, top-1 agreement.

Everything is accumulated batch by batch, so memory does not grow with the number of images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from sftn.data.dataset import Split
from sftn.data.loader import evaluation_batches
from sftn.errors import InputError
from sftn.networks.staged import StagedNet

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MINIBATCH = 256
"""Images per term of the minibatch estimate; part of the estimate's definition."""


class CKA:
    """Exact linear CKA of two sets of features, in feature space (Kornblith et al., ICML 2019, equation 7).

    ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖), Frobenius norms, centred columns. Memory is O(D²) for any number of images.
    """

    def __init__(self) -> None:
        self.count = 0
        self._origin: tuple[Tensor, Tensor] | None = None
        self._sums: list[Tensor] = []
        self._products: list[Tensor] = []

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add (B, D₁) and (B, D₂) features of the same images."""
        x, y = x.double(), y.double()
        if self._origin is None:
            # The result does not depend on the origin; one near the mean avoids cancellation.
            self._origin = x.mean(0), y.mean(0)
            self._sums = [torch.zeros_like(origin) for origin in self._origin]
            self._products = [x.new_zeros(a.shape[1], b.shape[1]) for a, b in ((x, y), (x, x), (y, y))]
        x, y = x - self._origin[0], y - self._origin[1]
        self.count += len(x)
        for total, part in zip(self._sums, (x, y)):
            total += part.sum(0)
        for total, (a, b) in zip(self._products, ((x, y), (x, x), (y, y))):
            total += a.T @ b

    def value(self) -> float:
        """CKA, 0 to 1; nan if one of the two is constant."""
        sx, sy = self._sums
        pairs = ((sx, sy), (sx, sx), (sy, sy))
        centred = [total - torch.outer(a, b) / self.count for total, (a, b) in zip(self._products, pairs)]
        cross, own, other = (matrix.norm() for matrix in centred)
        return float(cross**2 / (own * other))


class MinibatchCKA:
    """Linear CKA from minibatches: unbiased estimates of HSIC, each averaged before the quotient is taken.

    Nguyen, Raghu and Kornblith (ICLR 2021), equations 2 and 3, with the HSIC₁ of Song et al. (2012). The features are
    split into minibatches of `size` in order of arrival, independently of the batches in which they arrive; an
    incomplete last one is left out unless it is the only one.
    """

    def __init__(self, size: int = MINIBATCH) -> None:
        self.size = size
        self._rest: tuple[Tensor, Tensor] | None = None
        self._sums = torch.zeros(3, dtype=torch.float64)
        self._terms = 0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add (B, D₁) and (B, D₂) features of the same images."""
        x, y = x.double(), y.double()
        if self._rest is not None:
            x, y = torch.cat([self._rest[0], x]), torch.cat([self._rest[1], y])
        while len(x) >= self.size:
            self._sums = self._sums + _hsics(x[: self.size], y[: self.size])
            self._terms += 1
            x, y = x[self.size :], y[self.size :]
        self._rest = x.clone(), y.clone()

    def value(self) -> float:
        """CKA, about 0 to 1; nan with fewer than four images, or if one of the two is constant."""
        sums = self._sums
        if not self._terms and self._rest is not None and len(self._rest[0]) > 3:
            sums = _hsics(*self._rest)
        cross, own, other = sums.tolist()
        return float(cross / (own * other) ** 0.5) if own * other > 0 else float("nan")


def _hsics(x: Tensor, y: Tensor) -> Tensor:
    """(3,) HSIC₁ of (x, y), (x, x), (y, y)."""
    # Centring the features changes the kernels only by terms that HSIC₁ ignores, and avoids cancellation.
    k, m = ((part - part.mean(0)) @ (part - part.mean(0)).T for part in (x, y))
    return torch.stack([unbiased_hsic(a, b) for a, b in ((k, m), (k, k), (m, m))]).cpu()


def unbiased_hsic(k: Tensor, m: Tensor) -> Tensor:
    """HSIC₁ (Song et al., JMLR 2012, equation 5) of two (n, n) kernel matrices, n > 3; a scalar."""
    n = len(k)
    k, m = (matrix - torch.diag(matrix.diagonal()) for matrix in (k, m))
    rows, columns = k.sum(0), m.sum(0)
    together = (k * m).sum() + rows.sum() * columns.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (rows @ columns)
    return together / (n * (n - 3))


@torch.no_grad()
def similarity(
    teacher: StagedNet,
    student: StagedNet,
    split: Split,
    normalisation: tuple[Tensor, Tensor],
    fabric: Fabric,
    *,
    batch: int = 250,
    minibatch: int = MINIBATCH,
) -> dict[str, float]:
    """Measure the similarity of a teacher and a student, in eval mode, over a split.

    CKA compares the last stage after pooling, the input of the classifier (`Activations.embedding`). Images are visited
    in an order fixed by a seed, so that even a split sorted by class gives the minibatch estimate mixed batches.

    Args:
        teacher: on the device of `fabric`.
        student: on the device of `fabric`, with the same classes.
        split: the images.
        normalisation: as in training.
        fabric: device and precision.
        batch: images per batch; affects speed and rounding only.
        minibatch: images per term of the minibatch estimate.

    Returns:
        `kl`: mean KL(teacher ‖ student) in nats, temperature 1. `cka`: exact linear CKA, 0 to 1. `cka_minibatch`: its
        estimate. `agreement`: how often both rank the same class first, in percent.

    Raises:
        InputError: the networks have different classes, or a minibatch has fewer than four images.
    """
    if minibatch < 4:
        raise InputError(f"minibatch {minibatch}: the unbiased estimate needs at least 4")
    teacher.eval()
    student.eval()
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0)).to(split.images.device)
    mixed = Split(split.images[order], split.labels[order])
    exact, estimate = CKA(), MinibatchCKA(minibatch)
    sums = torch.zeros(2, dtype=torch.float64, device=fabric.device)
    for images, _, _ in evaluation_batches(mixed, batch=batch, normalisation=normalisation, device=fabric.device):
        with fabric.autocast():
            theirs, ours = teacher.activations(images), student.activations(images)
        if theirs.logits.shape != ours.logits.shape:
            raise InputError(
                f"{teacher.name} has {theirs.logits.shape[1]} classes and {student.name} has "
                f"{ours.logits.shape[1]}: compare networks of the same classes"
            )
        log_p, log_q = (F.log_softmax(seen.logits.double(), dim=1) for seen in (theirs, ours))
        kl = (log_p.exp() * (log_p - log_q)).sum()
        sums += torch.stack([kl, (log_p.argmax(1) == log_q.argmax(1)).sum().double()])
        exact.add(theirs.embedding.flatten(1), ours.embedding.flatten(1))
        estimate.add(theirs.embedding.flatten(1), ours.embedding.flatten(1))
    kl_mean, agreement = (sums / len(split)).tolist()
    return {
        "kl": max(0.0, kl_mean),
        "cka": exact.value(),
        "cka_minibatch": estimate.value(),
        "agreement": 100 * agreement,
    }
