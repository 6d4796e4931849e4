"""Sources of a frozen teacher's outputs for a batch: running the teacher, or outputs that are known already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from sftn.networks.staged import Activations, StagedNet

if TYPE_CHECKING:
    from sftn.data.loader import Batches


class TeacherOutputs:
    """Runs the teacher on every batch; `sftn.runs.teacher_cache.SharedOutputs` also shares and stores its outputs."""

    before_step: bool = False
    """Whether outputs are looked up before a step, and so are not part of what is compiled or captured."""

    def adopt(self, teacher: StagedNet) -> StagedNet:
        """The teacher to run: this one, unless another one with the same outputs is shared."""
        return teacher

    def next_batch(self, loader: Batches, epoch: int, step: int) -> None:
        """Called before the outputs of a batch are needed; epoch and step are counted from 0."""

    def __call__(self, teacher: StagedNet, images: Tensor, index: Tensor) -> Activations:
        """The teacher's activations for (B, C, H, W) images; (B,) `index` holds the indices of the training images.

        Activations that no method of the distillation reads may be missing.
        """
        return teacher.activations(images)


class KnownOutputs(TeacherOutputs):
    """Returns the outputs that it was made with, which were looked up before the step."""

    def __init__(self, activations: Activations) -> None:
        self.activations = activations

    def __call__(self, teacher: StagedNet, images: Tensor, index: Tensor) -> Activations:
        """The known activations, whatever the images are."""
        return self.activations
