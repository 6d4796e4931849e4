"""SSKD: what the teacher makes of rotated images (Xu et al., 2020, arXiv:2006.07114)."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sftn.data.batch import Batch, check_images
from sftn.errors import InputError
from sftn.methods.base import Method, in_float32, in_own_dtype, require_positive
from sftn.networks.alignment import Pair
from sftn.networks.staged import Activations, StagedNet
from sftn.runtime.collectives import gathered
from sftn.spec.schedule import Schedule
from sftn.training.phase import Phase

ROTATIONS = 4
"""0°, 90°, 180° and 270°: the views of an image, the image itself first."""


class SSKD(Method):
    """Match the teacher's predictions on rotated images, and which image it takes each rotation to belong to.

    Self-supervision in knowledge distillation (arXiv:2006.07114). Reads logits (4B, K) and embeddings (4B, D) of B
    images: each gives four rows, the image and three rotations. TF is KD on the rotations. SS compares the projected
    embedding of each rotation with those of all upright images by cosine; the student's softmax over the images follows
    the teacher's. Both keep all rows that the teacher has right and the best ranked share of those that it has wrong.
    CE and KD of the upright rows stand in the objective: the authors' whole loss is 0.1·CE + 0.9·KD + 2.7·TF + 10·SS,
    and this is the last two.

    The teacher's projection head is trained first, for a quarter of the run, at rate 0.05, on rotations alone, with the
    rest of the teacher frozen.

    Heads, temperatures, ratios and schedule are those of the authors' code (xuguodong03/SSKD). It crops each rotation
    on its own; `independent_crops` does so too, because a turned uniform crop is a uniform crop of the turned image.
    Deviations: images are never mirrored (`flip`), where the data set of that code mirrors half of them, an image's
    four views alike; the share of wrong rows is an exact fraction, without rounding errors; equal ranks go by row.

    Example:
        >>> method = SSKD(pair, independent_crops=False)
        >>> views = method.views(images)
        >>> loss = method(student.activations(views), teacher.activations(views), batch)

    Args:
        pair: needs square maps.
        tf: weight of the transformed term.
        ss: weight of the self-supervised term.
        tf_temperature: of the transformed term; the term is multiplied by its square.
        ss_temperature: of the similarities; likewise.
        tf_ratio: share of wrongly classified rotations to keep, in 0..1.
        ss_ratio: share of wrongly assigned rotations to keep, in 0..1.
        independent_crops: whether each rotation has its own random crop; if not, an image is cropped once.

    Raises:
        InputError: the maps are not square, or an option is out of range.
    """

    summary = "Knowledge Distillation Meets Self-Supervision (Xu et al., ECCV 2020)"
    reads = "the logits and embeddings of four rotations"
    source = "xuguodong03/SSKD"
    ce = 0.1
    kd = 0.9
    flip = False

    def __init__(
        self,
        pair: Pair,
        tf: float = 2.7,
        ss: float = 10.0,
        tf_temperature: float = 4.0,
        ss_temperature: float = 0.5,
        tf_ratio: float = 1.0,
        ss_ratio: float = 0.75,
        independent_crops: bool = True,
    ) -> None:
        super().__init__(pair)
        for _, height, width in (*pair.student.features, *pair.teacher.features):
            if height != width:
                raise InputError(
                    f"SSKD rotates images by 90° and needs square ones, but there are maps of {height}×{width}: "
                    "resize or crop the images to squares, or choose another method"
                )
        for name, ratio in (("tf_ratio", tf_ratio), ("ss_ratio", ss_ratio)):
            if not 0 <= ratio <= 1:
                raise InputError(f"SSKD's {name} is {ratio}: give a share between 0 and 1")
        require_positive("sskd", tf_temperature=tf_temperature, ss_temperature=ss_temperature)
        require_positive("sskd", zero=True, tf=tf, ss=ss)
        self.tf, self.ss = tf, ss
        self.tf_temperature, self.ss_temperature = tf_temperature, ss_temperature
        self.tf_ratio, self.ss_ratio = tf_ratio, ss_ratio
        self.copies = ROTATIONS if independent_crops else 1
        self.student_head = _head(pair.student.embedding)
        self.teacher_head = _head(pair.teacher.embedding)

    def views(self, images: Tensor) -> Tensor:
        """(B·copies, C, S, S) -> (4B, C, S, S): counter-clockwise by 0°, 90°, 180° and 270°, side by side.

        Raises:
            InputError: the images are not square.
        """
        if images.shape[-2] != images.shape[-1]:
            raise InputError(
                f"SSKD rotates images by 90° and needs square ones, not {images.shape[-2]}×{images.shape[-1]}: "
                "resize or crop the images to squares, or choose another method"
            )
        copies = images.unflatten(0, (-1, self.copies))
        views = [copies[:, min(k, self.copies - 1)].rot90(k, dims=(-2, -1)) for k in range(ROTATIONS)]
        return torch.stack(views, dim=1).flatten(0, 1)

    def warmup(self, student: StagedNet, teacher: StagedNet, schedule: Schedule) -> Phase:
        """The teacher's projection head, on a quarter of the run; needs no labels."""
        task = TeacherHead(self, teacher)
        quarter = schedule.warmup(60, lr=0.05, milestones=(30 / 60, 45 / 60))
        return Phase("sskd", task, (self.teacher_head,), quarter)

    def trains(self) -> list[nn.Module]:
        """The student's projection head; the teacher's has been trained before."""
        return [self.student_head]

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """tf·TF + ss·SS; the activations have 4B rows, the labels B."""
        ours = gathered(in_own_dtype(self.student_head, student.embedding))
        with torch.no_grad():
            theirs = gathered(in_own_dtype(self.teacher_head, teacher.embedding))
        logits = gathered(student.logits), gathered(teacher.logits)
        tf = transformed(*logits, gathered(batch.labels), self.tf_temperature, self.tf_ratio)
        return self.tf * tf + self.ss * supervised(ours, theirs, self.ss_temperature, self.ss_ratio)


class TeacherHead(nn.Module):
    """The task of the warm-up: the teacher's head learns to tell which image a rotation is of."""

    def __init__(self, method: SSKD, teacher: StagedNet) -> None:
        super().__init__()
        self.method = method
        self.teacher = teacher

    def forward(self, images: Tensor, labels: Tensor, index: Tensor) -> dict[str, Tensor]:
        """A batch -> `{"loss": …}`; only its images are read."""
        check_images(images, self.teacher)
        with torch.no_grad():
            embedding = self.teacher.activations(self.method.views(images)).embedding
        return {"loss": teacher_head_loss(gathered(in_own_dtype(self.method.teacher_head, embedding)))}


@in_float32
def transformed(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, ratio: float) -> Tensor:
    """TF: (4B, K) logits and (B,) labels -> KL(teacher ‖ student)·T² on the kept rotations, a scalar."""
    ours, theirs = _rotated(student), _rotated(teacher.detach())
    keep = kept(truth_rank(theirs, labels.repeat_interleave(ROTATIONS - 1)), ratio)
    return _divergence(ours, theirs, temperature, keep)


@in_float32
def supervised(student: Tensor, teacher: Tensor, temperature: float, ratio: float) -> Tensor:
    """SS: (4B, D) and (4B, D') projections -> KL(teacher ‖ student)·T² of the kept similarities, a scalar."""
    ours, theirs = similarity(student), similarity(teacher.detach())
    return _divergence(ours, theirs, temperature, kept(truth_rank(theirs, _origin(theirs)), ratio))


@in_float32
def teacher_head_loss(projection: Tensor) -> Tensor:
    """(4B, D) -> scalar: cross-entropy of the similarities against the image that each rotation is of."""
    likeness = similarity(projection)
    return F.cross_entropy(likeness, _origin(likeness))


def similarity(projection: Tensor) -> Tensor:
    """(4B, D) -> (3B, B): the cosine of each rotation with each upright image."""
    upright, rotated = projection[::ROTATIONS], _rotated(projection)
    return F.normalize(rotated, eps=1e-8) @ F.normalize(upright, eps=1e-8).T


def truth_rank(scores: Tensor, truth: Tensor) -> Tensor:
    """(R, K) scores and (R,) columns -> (R,) int64: how many columns beat the true one; of equals, the left."""
    own = scores.gather(1, truth.unsqueeze(1))
    earlier = torch.arange(scores.shape[1], device=scores.device) < truth.unsqueeze(1)
    return ((scores > own) | ((scores == own) & earlier)).sum(1)


def kept(rank: Tensor, ratio: float) -> Tensor:
    """(R,) ranks -> (R,) bool: all rows of rank 0 and the `ratio` of the others that ranks best, ties by row order.

    A mask of fixed shape, counted on the device: an index would make the host wait for it.
    """
    share = Fraction(ratio).limit_denominator(10_000)
    wrong = (rank > 0).sum()
    keep = len(rank) - wrong + wrong * share.numerator // share.denominator
    place = rank.argsort(stable=True).argsort()
    return place < keep


def _divergence(student: Tensor, teacher: Tensor, temperature: float, keep: Tensor) -> Tensor:
    ours, theirs = F.log_softmax(student / temperature, dim=1), F.log_softmax(teacher / temperature, dim=1)
    rows = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(1)
    return (rows * keep).sum() / keep.sum().clamp_min(1) * temperature**2


def _rotated(rows: Tensor) -> Tensor:
    return rows.unflatten(0, (-1, ROTATIONS))[:, 1:].flatten(0, 1)


def _origin(similarity: Tensor) -> Tensor:
    return torch.arange(similarity.shape[1], device=similarity.device).repeat_interleave(ROTATIONS - 1)


def _head(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
