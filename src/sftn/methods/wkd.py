"""WKD: what it costs to move the student's probabilities or features to the teacher's (Lv et al., 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from sftn.data.batch import Batch
from sftn.errors import InputError
from sftn.methods.base import Method, in_float32, in_own_dtype, require_positive
from sftn.methods.last_map import classifier
from sftn.methods.logits import LogitMethod, others
from sftn.methods.nkd import target_loss
from sftn.networks.alignment import Pair
from sftn.networks.connector import connector
from sftn.networks.staged import Activations, Shape, StagedNet
from sftn.spec.objective import fade_factor

EPS = 1e-8
"""Added to costs and to what the iterations divide by, as the authors' code does."""


def cosine_similarities(weight: Tensor) -> Tensor:
    """A classifier's (K, D) -> (K, K): the cosine of each two of its rows."""
    rows = F.normalize(weight, dim=1)
    return rows @ rows.T


def cka_similarities(class_logits: Tensor) -> Tensor:
    """(K, n, D), n training images of each class -> (K, K): centred kernel alignment of each two classes.

    The n-th image of one class is paired with the n-th of the other: the order of the images matters.
    """
    rows = class_logits - class_logits.mean(1, keepdim=True)
    products = torch.einsum("ind,jne->ijde", rows, rows).square().sum((2, 3))
    own = products.diagonal().sqrt()
    return products / (own[:, None] * own)


def cost(similarities: Tensor, sharpen: float = 1.0) -> Tensor:
    """(K, K) similarities -> (K, K) costs, 1 - exp(-sharpen·(1 - similarity))."""
    return 1 - (-sharpen * (1 - similarities)).exp()


@in_float32
def transport_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    cost: Tensor,
    temperature: float = 8.0,
    regularisation: float = 0.05,
    iterations: int = 10,
) -> Tensor:
    """The cost of moving the student's probabilities of the other classes to the teacher's, by Sinkhorn's iterations.

    The gradient passes through all of them.

    Args:
        student: (B, K) logits.
        teacher: (B, K) logits.
        labels: (B,); an image's own class takes no part.
        cost: (K, K), of moving probability from a class to another.
        temperature: of both softmaxes; no T² is in the loss.
        regularisation: of the transport's entropy; smaller ones are nearer to the true cost and take more iterations.
        iterations: how many.

    Returns:
        (B,), of each image.
    """
    ours = F.softmax(others(student, labels) / temperature, dim=1)
    theirs = F.softmax(others(teacher, labels) / temperature, dim=1)
    between = others(cost.to(ours.dtype).expand(len(labels), -1, -1).flatten(0, 1), labels.repeat_interleave(len(cost)))
    between = between.unflatten(0, (len(labels), -1)).mT  # (B, K - 1 columns, K rows)
    between = others(between.flatten(0, 1), labels.repeat_interleave(len(cost) - 1))
    between = between.unflatten(0, (len(labels), -1)).mT.relu() + EPS
    kernel = (-between / regularisation).exp()
    rows = torch.full_like(ours, 1 / ours.shape[1])
    columns = rows
    for _ in range(iterations):
        columns = theirs / ((kernel.mT @ rows.unsqueeze(2)).squeeze(2) + EPS)
        rows = ours / ((kernel @ columns.unsqueeze(2)).squeeze(2) + EPS)
    return torch.einsum("bi,bij,bj->b", rows, kernel * between, columns)


class WKDL(LogitMethod):
    """Wasserstein distance of logits (arXiv:2412.08139): target + γ·transport of the other classes.

    Reads the logits, (B, K), and the teacher's classifier, (K, D), whose rows say how far apart classes are. The target
    is NKD's. γ falls to zero on half a cosine after 150 of 240 epochs. The defaults are those of resnet32x4 to
    resnet8x4; WRN40-2 to ShuffleNet V1 has T = 6 and γ = 200.

    Deviation: the costs are those of the authors' option "fc" (`cosine_similarities`). Their default compares the
    logits of all training images class by class, which a method does not see here; in a loop of one's own
    `method.cost.copy_(cost(cka_similarities(…)))` sets it.

    Example:
        >>> method = WKDL(pair, gamma=200.0)
        >>> method.attach(student, teacher, image=(3, 32, 32))
        >>> loss = method(student.activations(images), teacher.activations(images), batch)

    Args:
        pair: the networks; the teacher's head has one linear layer.
        gamma: weight of the transport.
        temperature: of the transport.
        regularisation: of the transport's entropy.
        iterations: of Sinkhorn.
        sharpen: how steeply a cost grows with unlikeness.
        gamma_fade: after which epoch (or fraction of the run) γ falls.
        standardise: compare standardised logits.

    Raises:
        InputError: an option is out of range.
    """

    summary = "Wasserstein Distance Rivals Kullback-Leibler Divergence (Lv et al., NeurIPS 2024), logits"
    reads = "logits and the teacher's classifier"
    source = "JiamingLv/WKD"
    kd = 0.0
    cost: Tensor
    factor: Tensor

    def __init__(
        self,
        pair: Pair,
        *,
        gamma: float = 600.0,
        temperature: float = 8.0,
        regularisation: float = 0.05,
        iterations: int = 10,
        sharpen: float = 1.0,
        gamma_fade: float = 150 / 240,
        standardise: bool = False,
    ) -> None:
        super().__init__(pair, standardise=standardise)
        require_positive("wkd-l", temperature=temperature, regularisation=regularisation, iterations=iterations)
        require_positive("wkd-l", zero=True, gamma=gamma, sharpen=sharpen, gamma_fade=gamma_fade)
        if not math.isfinite(gamma_fade):
            raise InputError(f"wkd-l's gamma_fade is {gamma_fade}: give an epoch (150), or a fraction of the run (0.6)")
        self.gamma, self.temperature, self.regularisation = gamma, temperature, regularisation
        self.iterations, self.sharpen, self.gamma_fade = iterations, sharpen, gamma_fade
        self.register_buffer("cost", torch.ones(pair.classes, pair.classes))
        self.register_buffer("factor", torch.tensor(1.0), persistent=False)

    def attach(self, student: StagedNet, teacher: StagedNet, image: Shape) -> None:
        """Take the costs from the teacher's classifier.

        Raises:
            InputError: its head has no linear layer, or several.
        """
        weight = classifier(teacher, "wkd-l").weight.detach().float()
        self.cost = cost(cosine_similarities(weight), self.sharpen)

    def set_epoch(self, epoch: int, epochs: int) -> None:
        """Set what γ is multiplied by."""
        self.factor.fill_(fade_factor(self.gamma_fade, epoch, epochs))

    def loss(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """Target + γ·transport."""
        how = self.temperature, self.regularisation, self.iterations
        transport = transport_loss(student, teacher, labels, self.cost, *how).mean()
        return target_loss(student, teacher, labels) + self.gamma * self.factor * transport


@in_float32
def moments(feature: Tensor, grid: int = 1, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """(B, C, H, W) -> mean and deviation, (B, C, grid²) each, of every cell, which are cut as adaptive pooling cuts.

    The deviation is the root of the variance (of n - 1) + eps.
    """
    height, width = (_cells(size, grid) for size in feature.shape[-2:])
    cells = [feature[..., rows, columns].flatten(2) for rows in height for columns in width]
    means = torch.stack([cell.mean(2) for cell in cells], dim=2)
    deviations = torch.stack([(cell.var(2) + eps).sqrt() for cell in cells], dim=2)
    return means, deviations


def _cells(size: int, grid: int) -> list[slice]:
    return [slice(k * size // grid, -(-(k + 1) * size // grid)) for k in range(grid)]


@in_float32
def moment_losses(student: Tensor, teacher: Tensor, grid: int = 1, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Squared differences of means and of deviations, summed over channels, the mean over images and cells: scalars.

    Args:
        student: (B, C, H, W), connected.
        teacher: (B, C, H', W')
        grid: into how many rows and columns a map is cut.
        eps: added to a variance.
    """
    pairs = zip(moments(student, grid, eps), moments(teacher, grid, eps))
    mean, deviation = ((ours - theirs).square().sum() / (len(student) * grid**2) for ours, theirs in pairs)
    return mean, deviation


class WKDF(Method):
    """Wasserstein distance of features (arXiv:2412.08139): of Gaussians, one a channel and cell of the last map.

    Reads the last features, (B, C, H, W) and (B, C', H', W'). The student's goes through a 1×1 convolution, batch norm
    and ReLU. The defaults are those of resnet32x4 to resnet8x4; WRN40-2 to ShuffleNet V1 has a weight of 0.3, a ratio
    of 3 and a grid of 4.

    Deviation: none from the authors' code, which compares deviations under the name of covariances.

    Example:
        >>> method = WKDF(pair, grid=2)
        >>> loss = method(student.activations(images), teacher.activations(images), batch)

    Args:
        pair: the networks; cells of maps of at least two pixels.
        ratio: weight of the means, over that of the deviations.
        grid: into how many rows and columns a map is cut.
        eps: added to a variance.

    Raises:
        InputError: an option is out of range, or a cell has but one pixel.
    """

    summary = "Wasserstein Distance Rivals Kullback-Leibler Divergence (Lv et al., NeurIPS 2024), features"
    reads = "the feature of the last stage"
    source = "JiamingLv/WKD"
    kd = 0.0
    weight = 0.08
    teacher_outputs = ("features",)

    def __init__(self, pair: Pair, *, ratio: float = 4.0, grid: int = 1, eps: float = 1e-5) -> None:
        super().__init__(pair)
        require_positive("wkd-f", grid=grid, eps=eps)
        require_positive("wkd-f", zero=True, ratio=ratio)
        ours, theirs = pair.student.features[-1], pair.teacher.features[-1]
        for _, height, width in (ours, theirs):
            if -(-height // grid) * -(-width // grid) < 2:
                raise InputError(
                    f"wkd-f takes deviations within cells, and a map of {height}×{width} cut {grid} by {grid} has "
                    "cells of one pixel: give a smaller grid, larger images, or choose another method"
                )
        self.ratio, self.grid, self.eps = ratio, grid, eps
        self.connector = connector(ours, (theirs[0], *ours[1:]))

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """ratio·means + deviations, a scalar."""
        connected = in_own_dtype(self.connector, student.features[-1])
        mean, deviation = moment_losses(connected, teacher.features[-1].detach(), self.grid, self.eps)
        return self.ratio * mean + deviation
