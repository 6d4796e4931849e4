"""MLKD: images, the batch and the classes compared at several temperatures (Jin et al., CVPR 2023)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sftn.data.batch import Batch
from sftn.methods.base import in_float32, require_positive
from sftn.methods.kd import divergence
from sftn.methods.logits import LogitMethod, standardised
from sftn.networks.alignment import Pair
from sftn.networks.staged import Activations
from sftn.runtime.collectives import gathered

FURTHER = (3.0, 5.0, 2.0, 6.0)
"""The temperatures beside the base one; the first two of them count as strong ones, see `multi_level_loss`."""
VIEWS = 2
"""A weak view of an image and a strong one."""


class Parts(NamedTuple):
    """The parts of the loss, all scalars, masked and weighted."""

    ce_weak: Tensor
    ce_strong: Tensor
    kd: Tensor
    cc: Tensor
    bc: Tensor


def class_correlation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """CC: squared difference of the (K, K) products of classes over the batch ÷ K, of (B, K) logits: a scalar."""
    ours, theirs = (F.softmax(logits / temperature, dim=1) for logits in (student, teacher))
    return (theirs.T @ theirs - ours.T @ ours).square().sum() / student.shape[1]


def batch_correlation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """BC: squared difference of the (B, B) products of images over the classes ÷ B, of (B, K) logits: a scalar."""
    ours, theirs = (F.softmax(logits / temperature, dim=1) for logits in (student, teacher))
    return (theirs @ theirs.T - ours @ ours.T).square().sum() / len(student)


def kept(teacher: Tensor) -> tuple[Tensor, Tensor]:
    """(B, K) logits of the weak view -> (B,) images and (K,) classes that are kept, bool.

    An image, if the teacher's largest probability is at most the median over the batch; a class, if the sum of its
    probabilities over the batch is at most the median over the classes.
    """
    probabilities = F.softmax(teacher, dim=1)
    sure, seen = probabilities.amax(1), probabilities.sum(0)
    return sure <= _median(sure), seen <= _median(seen)


def _median(values: Tensor) -> Tensor:
    # Of an even number the lower one: at most it are those that are at most the mean of the middle two.
    return values.sort().values[(len(values) - 1) // 2]


@in_float32
def multi_level_loss(
    student_weak: Tensor,
    student_strong: Tensor,
    teacher_weak: Tensor,
    teacher_strong: Tensor,
    labels: Tensor,
    *,
    temperature: float = 4.0,
    ce_weight: float = 0.1,
    kd_weight: float = 0.9,
    standardise: bool = False,
) -> Parts:
    """The whole objective, as the authors' code computes it.

    Its masks select nothing: a mean is multiplied by the share of images (or classes) that are kept. Of the strong view
    KD counts at the base temperature, 3 and 5; at 2 and 6 the weak view counts a second time in its place. CC and BC
    are of the weak view alone.

    Args:
        student_weak: (B, K)
        student_strong: (B, K)
        teacher_weak: (B, K)
        teacher_strong: (B, K)
        labels: (B,)
        temperature: the base one.
        ce_weight: of cross-entropy.
        kd_weight: of KD, CC and BC.
        standardise: whether KD (not CC and BC) compares standardised logits.
    """
    change = standardised if standardise else _same
    ours, theirs = change(student_weak), change(teacher_weak)
    images, classes = (mask.to(student_weak.dtype).mean() for mask in kept(teacher_weak))
    temperatures = (temperature, *FURTHER)
    each = torch.stack([divergence(ours, theirs, T) for T in temperatures])
    ours, theirs = change(student_strong), change(teacher_strong)
    of_strong = torch.stack([divergence(ours, theirs, T) for T in temperatures[:3]])
    cc = torch.stack([class_correlation_loss(student_weak, teacher_weak, T) for T in temperatures]).sum()
    bc = torch.stack([batch_correlation_loss(student_weak, teacher_weak, T) for T in temperatures]).sum()
    return Parts(
        ce_weak=ce_weight * F.cross_entropy(student_weak, labels),
        ce_strong=ce_weight * F.cross_entropy(student_strong, labels),
        kd=kd_weight * (images * each.sum() + of_strong.sum() + each[3:].sum()),
        cc=kd_weight * classes * cc,
        bc=kd_weight * images * bc,
    )


def _same(logits: Tensor) -> Tensor:
    return logits


class MLKD(LogitMethod):
    """Multi-level logit distillation (Jin et al., CVPR 2023): KD, batch and class correlations at five temperatures.

    Reads the logits, (2B, K), of B images: a weak view, cropped and mirrored, and a strong one, which is cropped and
    mirrored on its own and then distorted. The loss is `multi_level_loss` without the cross-entropy of the weak view,
    which stands in the objective at the same weight.

    The equations are those of the authors' code, whose masks select nothing and whose strong view has no terms at two
    of the temperatures. Deviations: the strong view is `distorted`, which has two of RandAugment's geometric and colour
    operations at magnitude 10, but neither posterise, solarise, equalise, autocontrast nor sharpness; both views go
    through the student in one batch, so that batch norms see them together, and the schedule is that of the other
    methods, where theirs has up to 960 epochs.

    `mlkd@std` standardises the logits of KD, at a base temperature of 2 and a weight of 9 (arXiv:2403.01427).

    Example:
        >>> method = MLKD(pair)
        >>> views = method.views(images.repeat_interleave(2, dim=0))
        >>> loss = method(student.activations(views), teacher.activations(views), batch)

    Args:
        pair: the networks.
        temperature: the base one, beside 3, 5, 2 and 6.
        kd_weight: of KD, CC and BC.
        ce_weight: of the strong view's cross-entropy.
        distort: whether the strong view is distorted; if not, it is another crop.
        standardise: standardise the logits of KD.

    Raises:
        InputError: a weight is negative, or the temperature is not positive.
    """

    summary = "Multi-level Logit Distillation (Jin et al., CVPR 2023)"
    reads = "the logits of a weak and a strong view"
    source = "Jin-Ying/Multi-Level-Logit-Distillation"
    ce = 0.1
    kd = 0.0
    copies = VIEWS
    standardised_options: ClassVar[Mapping[str, float]] = {"temperature": 2.0, "kd_weight": 9.0}

    def __init__(
        self,
        pair: Pair,
        *,
        temperature: float = 4.0,
        kd_weight: float = 0.9,
        ce_weight: float = 0.1,
        distort: bool = True,
        standardise: bool = False,
    ) -> None:
        super().__init__(pair, standardise=standardise)
        require_positive("mlkd", temperature=temperature)
        require_positive("mlkd", zero=True, kd_weight=kd_weight, ce_weight=ce_weight)
        self.temperature, self.kd_weight, self.ce_weight, self.distort = temperature, kd_weight, ce_weight, distort

    def views(self, images: Tensor) -> Tensor:
        """(2B, C, H, W) -> the same, every second image distorted."""
        if not self.distort:
            return images
        weak, strong = images.unflatten(0, (-1, VIEWS)).unbind(1)
        return torch.stack([weak, distorted(strong)], dim=1).flatten(0, 1)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """The loss without the weak view's cross-entropy; the activations have 2B rows, the labels B."""
        return self.loss(student.logits, teacher.logits.detach(), batch.labels)

    def loss(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """(2B, K), (2B, K), (B,) -> a scalar."""
        # Split before they are gathered: a process's images stand together there.
        student_weak, student_strong = (gathered(student[view::VIEWS]) for view in range(VIEWS))
        teacher_weak, teacher_strong = (gathered(teacher[view::VIEWS]) for view in range(VIEWS))
        _, *parts = multi_level_loss(
            student_weak,
            student_strong,
            teacher_weak,
            teacher_strong,
            gathered(labels),
            temperature=self.temperature,
            ce_weight=self.ce_weight,
            kd_weight=self.kd_weight,
            standardise=self.standardise,
        )
        return torch.stack(parts).sum()


OPERATIONS = 9
"""Nothing, two shears, two shifts, a rotation, brightness, contrast, saturation; each as likely."""
SHEAR, SHIFT, ANGLE, COLOUR = 0.1, 0.15, math.radians(10), 0.3
"""How far each goes, to either side: RandAugment's at magnitude 10 of 30."""


def distorted(images: Tensor, rounds: int = 2) -> Tensor:
    """(B, C, H, W), normalised -> the same shape: to each image so many random operations of RandAugment's.

    Brightness is that of images whose mean is two deviations, as of most data sets; what is moved in from outside is
    the mean colour. The operations are chosen without waiting for the device.
    """
    count, _, height, width = images.shape
    moved = torch.eye(3, device=images.device).repeat(count, 1, 1)
    for _ in range(rounds):
        operation = torch.randint(OPERATIONS, (count,), device=images.device)
        side = 2.0 * torch.randint(2, (count,), device=images.device) - 1

        def of(number: int, most: float, operation: Tensor = operation, side: Tensor = side) -> Tensor:
            return most * side * (operation == number)

        angle = of(5, ANGLE)
        step = torch.eye(3, device=images.device).repeat(count, 1, 1)
        step[:, 0, 0], step[:, 1, 1] = angle.cos(), angle.cos()
        step[:, 0, 1] = (of(1, SHEAR) - angle.sin()) * height / width
        step[:, 1, 0] = (of(2, SHEAR) + angle.sin()) * width / height
        step[:, 0, 2], step[:, 1, 2] = of(3, 2 * SHIFT), of(4, 2 * SHIFT)
        moved = moved @ step
        brightness, contrast, saturation = (1 + of(number, COLOUR).view(-1, 1, 1, 1) for number in (6, 7, 8))
        images = images * brightness + 2 * (brightness - 1)
        images = torch.lerp(images.mean((1, 2, 3), keepdim=True), images, contrast)
        images = torch.lerp(images.mean(1, keepdim=True), images, saturation)
    grid = F.affine_grid(moved[:, :2], list(images.shape), align_corners=False).to(images.dtype)
    return F.grid_sample(images, grid, mode="nearest", padding_mode="zeros", align_corners=False)
