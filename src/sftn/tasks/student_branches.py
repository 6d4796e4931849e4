"""The student-friendly teacher: branches built from the student's blocks grow out of the teacher while it learns.

This is the complete method of the paper. A teacher of N blocks gets N-1 branches; branch i is

    teacher's feature i -> transform T^i -> student blocks i+1 … N -> pooling and classifier of the student

and nothing is shared between branches. Teacher, transforms and branches are trained together with the loss

    λ_T · CE(teacher)  +  mean over branches of  λ_R^KL · τ² · KL(teacher ‖ branch)  +  λ_R^CE · CE(branch).

The KL term is not detached: its gradient moves the teacher's outputs towards ones that the student can learn.
Afterwards the branches are dropped, and the teacher is distilled like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sftn.data.batch import check_batch
from sftn.errors import InputError
from sftn.methods.base import to_float32
from sftn.methods.kd import distillation_loss
from sftn.methods.logits import check_standardised
from sftn.networks.alignment import Pair
from sftn.networks.connector import connector
from sftn.networks.staged import Shape, StagedNet
from sftn.spec.alignment import Alignment


@dataclass(frozen=True)
class Growth:
    """The point at which a branch grows. Stages are counted from 0, branches from 1."""

    number: int
    student_stage: int
    """The stage that the transform replaces; the branch runs the stages after it."""
    teacher_stage: int
    source: Shape
    """The shape of the teacher's feature."""
    target: Shape | None
    """The input shape of the student's next stage; None if its input is not a map."""
    share: float = 1.0
    """The weight of this branch in the loss."""


class Branch(nn.Module):
    """A transform and the later blocks of a student (Table 22): (B, C, H, W) teacher feature -> (B, K) logits."""

    def __init__(self, place: Growth, student: StagedNet) -> None:
        super().__init__()
        if place.target is None:
            raise InputError(
                f"no branch can be grown for {student.name}: it has a class token beside its maps, which a transform "
                "cannot produce; choose a student without one, or distil it from a teacher made for another student"
            )
        self.transform = connector(place.source, place.target)
        self.stages = nn.ModuleList(student.stages[place.student_stage + 1 :])
        self.head = student.head

    def forward(self, feature: Tensor) -> Tensor:
        """Run the transform and the student's stages from i+1 on."""
        flow = self.transform(feature)
        for stage in self.stages:
            flow = stage(flow).flow
        _, logits = self.head(flow)
        return logits


class StudentBranches(nn.Module):
    """A teacher with its student's branches: (images, labels) -> the loss that trains all of them.

    Args:
        teacher: the network to be made student-friendly; it is trained in place and can be used alone at any time.
        student: builds a fresh student; called for every branch, which drops the blocks before its own. Several
            builders make the teacher friendly to several students: each has its branches, their losses are averaged.
        image: (C, H, W) of the images.
        branches: which of the N-1 branches of each student to grow, counted from 1 (Table 14); None for all.
        teacher_ce: λ_T, the weight of the teacher's own cross-entropy (Table 16).
        branch_kl: λ_R^KL.
        branch_ce: λ_R^CE (Table 15).
        temperature: τ of the KL term.
        reduction: "mean" or "sum" over the branches of a student.
        detach: stop the gradient of the KL term at the teacher's logits (unlike the paper).
        branch_logits: "plain", or "std" for a KL term of standardised logits (arXiv:2403.01427; unlike the paper).
        alignment: which student stage goes with which teacher stage; None for that of `sftn.networks.alignment.align`.

    Raises:
        InputError: the networks cannot be aligned, a branch's number is unknown, a weight or τ is out of range, or the
            logits of two classes are to be standardised.
    """

    def __init__(
        self,
        teacher: StagedNet,
        student: Callable[[], StagedNet] | Sequence[Callable[[], StagedNet]],
        image: Shape,
        *,
        branches: Sequence[int] | None = None,
        teacher_ce: float = 1.0,
        branch_kl: float = 3.0,
        branch_ce: float = 1.0,
        temperature: float = 1.0,
        reduction: Literal["mean", "sum"] = "mean",
        detach: bool = False,
        branch_logits: Literal["plain", "std"] = "plain",
        alignment: Alignment | None = None,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise InputError(f"temperature is {temperature}: it must be above 0")
        if min(teacher_ce, branch_kl, branch_ce) < 0:
            raise InputError("the weights teacher_ce, branch_kl and branch_ce must not be negative")
        if reduction not in ("mean", "sum"):
            raise InputError(f"unknown reduction {reduction!r}: choose mean or sum")
        if branch_logits not in ("plain", "std"):
            raise InputError(f"unknown branch_logits {branch_logits!r}: choose plain or std")
        builders = (student,) if callable(student) else tuple(student)
        if not builders:
            raise InputError("a student-friendly teacher needs a student")
        self.teacher = teacher
        channels, height, width = image
        self.image = (channels, height, width)
        self.classes = teacher.shapes(image).logits
        self.standardise = branch_logits == "std"
        if self.standardise:
            check_standardised(self.classes, "leave branch_logits at plain")
        self._entered = False  # whether a first batch has been checked
        self.watched = False
        """Whether the loop finds numbers that are not finite itself; if not, the first batch is searched for them."""
        self.growth: list[Growth] = []
        """The point at which each of `branches` grows."""
        self.branches = nn.ModuleList()
        for build in builders:
            places = _places(teacher, build(), image, branches, alignment)
            share = 1 / len(builders) / (len(places) if reduction == "mean" else 1)
            self.growth += [replace(place, share=share) for place in places]
            self.branches += [Branch(place, build()) for place in places]
        self.teacher_ce, self.branch_kl, self.branch_ce = teacher_ce, branch_kl, branch_ce
        self.temperature, self.detach = temperature, detach

    def forward(self, images: Tensor, labels: Tensor, index: Tensor | None = None) -> dict[str, Tensor]:
        """The loss and its terms, unweighted, for (B, C, H, W) images and (B,) labels.

        Returns:
            `loss`; the teacher's `ce`; `branch_kl` and `branch_ce`, reduced over the branches; the teacher's `accuracy`
            on the batch in percent. All are scalars; only `loss` carries a gradient.

        Raises:
            InputError: this is not such a batch (`sftn.data.batch.check_batch`).
        """
        first = not self._entered
        check_batch(
            images,
            labels,
            self.teacher,
            image=self.image,
            classes=self.classes,
            training=self.training,
            first=first,
            watched=self.watched,
        )
        if not torch.compiler.is_compiling():
            self._entered = True
        logits, _, features, _ = self.teacher.activations(images)
        logits = to_float32(logits)
        target = logits.detach() if self.detach else logits
        ce = F.cross_entropy(logits, labels)
        kl, hard = ce.new_zeros(()), ce.new_zeros(())
        for place, branch in zip(self.growth, self.branches):
            answer = to_float32(branch(features[place.teacher_stage]))
            kl = kl + place.share * distillation_loss(answer, target, self.temperature, self.standardise)
            hard = hard + place.share * F.cross_entropy(answer, labels)
        loss = self.teacher_ce * ce + self.branch_kl * kl + self.branch_ce * hard
        accuracy = 100 * (logits.argmax(1) == labels).float().mean()
        terms = {"ce": ce, "branch_kl": kl, "branch_ce": hard, "accuracy": accuracy}
        return {"loss": loss} | {name: term.detach() for name, term in terms.items()}


def _places(
    teacher: StagedNet, student: StagedNet, image: Shape, branches: Sequence[int] | None, alignment: Alignment | None
) -> list[Growth]:
    """The points at which the chosen branches of a student grow."""
    pair = Pair.of(teacher, student, image, labels=torch.empty(0, dtype=torch.long), alignment=alignment)
    stages = zip(pair.alignment[:-1], pair.teacher.features, pair.student.flows)
    possible = {k: Growth(k, *aligned, source, target) for k, (aligned, source, target) in enumerate(stages, start=1)}
    numbers = tuple(possible if branches is None else branches)
    if not numbers or len(set(numbers) & set(possible)) < len(numbers):
        raise InputError(f"branches {list(numbers)}: choose from {list(possible)}, each at most once")
    return [possible[number] for number in numbers]
