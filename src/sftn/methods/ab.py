"""AB: which neurons fire, not how strongly (Heo et al., 2019, arXiv:1811.03233)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sftn.data.batch import Batch, check_images
from sftn.methods.base import Method, in_float32, in_own_dtype, require_positive
from sftn.networks.alignment import Pair
from sftn.networks.connector import connector
from sftn.networks.staged import Activations, StagedNet
from sftn.spec.schedule import Schedule
from sftn.training.phase import Phase


@in_float32
def stage_loss(connected: Tensor, teacher: Tensor, margin: float = 1.0) -> Tensor:
    """Squared distance of each neuron to its side of the boundary, m beyond zero, summed over C, H and W.

    Args:
        connected: (B, C, H, W), the student's pre-activations in the teacher's shape.
        teacher: (B, C, H, W), the teacher's: a neuron fires where they are above zero.
        margin: m; a neuron on its side by as much costs nothing.

    Returns:
        A scalar, the mean over the batch.
    """
    wrong = F.relu(margin + torch.where(teacher > 0, -connected, connected))
    return wrong.square().sum() / len(connected)


@in_float32
def boundary_loss(connected: Sequence[Tensor], teacher: Sequence[Tensor], margin: float = 1.0) -> Tensor:
    """The sum of the stages' losses: the last one weighs 3/1000, each one before half as much.

    As in RepDistiller and the authors' code for CIFAR; their code for MIT scenes has 1/1000.
    """
    last = len(connected) - 1
    losses = [2.0 ** (k - last) * stage_loss(*stage, margin) for k, stage in enumerate(zip(connected, teacher))]
    return torch.stack(losses).sum() * 3 / 1000


class AB(Method):
    """Activation boundaries (arXiv:1811.03233): a first stage that initialises the student.

    Nothing is added to the main phase. The first stage reads the pre-activations of all stages, (B, C, H, W) and
    (B, C', H', W'), and trains the student's stem and stages together with the connectors, at the main phase's first
    learning rate. A connector is a convolution and batch norm, and nothing where both shapes are equal.

    Deviation, RepDistiller's: the teacher is in eval mode; in the authors' code it normalises by the batch, as with
    `ab(batch_statistics=true)`, which holds for the main phase too.

    Example:
        >>> method = AB(pair, margin=1.0)
        >>> first_stage = method.warmup(student, teacher, Schedule(epochs=240))  # 30 epochs

    Args:
        pair: the networks; any map sizes.
        margin: m, how far beyond the boundary a neuron has to be.
        epochs: length of the first stage where the main phase takes 240.
        batch_statistics: whether the teacher normalises by the batch's own statistics, as in the authors' code.

    Raises:
        InputError: the margin is negative, or there are no epochs.
    """

    summary = "Knowledge Transfer via Distillation of Activation Boundaries (Heo et al., AAAI 2019)"
    reads = "the pre-activations of all stages, in a first stage"
    source = "RepDistiller"
    teacher_outputs = ()

    def __init__(self, pair: Pair, *, margin: float = 1.0, epochs: int = 30, batch_statistics: bool = False) -> None:
        super().__init__(pair)
        self.batch_statistics = batch_statistics
        require_positive("ab", epochs=epochs)
        require_positive("ab", zero=True, margin=margin)
        self.margin = margin
        self.epochs = epochs
        shapes = zip(pair.student.features, pair.teacher.features)
        self.connectors = nn.ModuleList(
            nn.Sequential() if ours == theirs else connector(ours, theirs, relu=False) for ours, theirs in shapes
        )

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Zero."""
        return torch.zeros((), device=student.logits.device)

    def trains(self) -> list[nn.Module]:
        """Nothing: the connectors have done their work before."""
        return []

    def warmup(self, student: StagedNet, teacher: StagedNet, schedule: Schedule) -> Phase:
        """The first stage, 30 of 240 epochs at a constant learning rate."""
        last, _ = self.pair.alignment[-1]
        trains = (student.stem, *student.stages[: last + 1], self.connectors)
        return Phase("ab", BoundaryWarmup(student, teacher, self), trains, schedule.warmup(self.epochs))


class BoundaryWarmup(nn.Module):
    """The task of the first stage: the student's pre-activations learn the teacher's boundaries."""

    def __init__(self, student: StagedNet, teacher: StagedNet, method: AB) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.method = method

    def forward(self, images: Tensor, labels: Tensor, index: Tensor) -> dict[str, Tensor]:
        """A batch -> its `loss`."""
        check_images(images, self.teacher)
        with torch.no_grad():
            theirs = self.teacher.activations(images)
        ours, theirs = self.method.pair.aligned(self.student.activations(images), theirs)
        connected = [in_own_dtype(layer, preact) for layer, preact in zip(self.method.connectors, ours.preacts)]
        return {"loss": boundary_loss(connected, theirs.preacts, self.method.margin)}
