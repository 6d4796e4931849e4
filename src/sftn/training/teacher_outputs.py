"""Where a frozen teacher's outputs for a batch come from: running it, or what is known of it already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from sftn.networks.staged import Activations, StagedNet

if TYPE_CHECKING:
    from sftn.data.loader import Batches


class TeacherOutputs:
    """Runs the teacher on every batch. `sftn.runs.teacher_cache.SharedOutputs` shares and keeps what it gave."""

    before_step: bool = False
    """Whether outputs are looked up before a step, and so stay out of what is compiled or captured."""

    def adopt(self, teacher: StagedNet) -> StagedNet:
        """The teacher to run: this one, unless there is another that gives the same outputs."""
        return teacher

    def next_batch(self, loader: Batches, epoch: int, step: int) -> None:
        """Outputs are about to be asked for the batch of a step of an epoch, both counted from 0."""

    def __call__(self, teacher: StagedNet, images: Tensor, index: Tensor) -> Activations:
        """The teacher's activations for (B, C, H, W) images; (B,) `index` says which training images they are.

        What no method of the distillation reads may be missing.
        """
        return teacher.activations(images)


class KnownOutputs(TeacherOutputs):
    """Gives what it was made with: outputs that were looked up before the step."""

    def __init__(self, activations: Activations) -> None:
        self.activations = activations

    def __call__(self, teacher: StagedNet, images: Tensor, index: Tensor) -> Activations:
        """The activations, whatever the images are."""
        return self.activations
