"""SimKD: the teacher's classifier, reused by the student (Chen et al., 2022, arXiv:2203.14001)."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from sftn.data.batch import Batch
from sftn.errors import InputError
from sftn.methods.at import same_size
from sftn.methods.base import Method, in_float32, require_positive
from sftn.methods.last_map import last_map, place_of_flow
from sftn.networks.alignment import Pair
from sftn.networks.staged import Activations, Shape, StagedNet, Tap


@in_float32
def feature_loss(projected: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error of two maps, (B, C, H, W) each, the larger one averaged down to the smaller: a scalar."""
    projected, teacher = same_size(projected, teacher)
    return F.mse_loss(projected, teacher)


class Projector(nn.Module):
    """1×1, 3×3 and 1×1 convolutions, each with batch norm and ReLU: (B, c, h, w) -> (B, C, H, W).

    Args:
        channels: c.
        target: (C, H, W) of the teacher's last map; a larger one of the student is averaged down to it.
        factor: the middle has C ÷ factor channels.
    """

    def __init__(self, channels: int, target: Shape, factor: int = 2) -> None:
        super().__init__()
        out, *self.size = target
        middle = max(1, out // factor)
        self.conv1 = nn.Conv2d(channels, middle, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, out, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(out)

    def forward(self, flow: Tensor) -> Tensor:
        """The projection, before the last ReLU."""
        size = min(flow.shape[-2], self.size[0]), min(flow.shape[-1], self.size[1])
        if flow.shape[-2:] != size:
            flow = F.adaptive_avg_pool2d(flow, size)
        flow = self.norm1(self.conv1(flow)).relu()
        flow = self.norm2(self.conv2(flow)).relu()
        return self.norm3(self.conv3(flow))


class ProjectedStage(nn.Module):
    """A student's last stage and a projector after it."""

    def __init__(self, stage: nn.Module, projector: Projector) -> None:
        super().__init__()
        self.stage, self.projector = stage, projector

    @property
    def closing_norm(self) -> nn.BatchNorm2d:
        """The projector's last one."""
        return self.projector.norm3

    def forward(self, flow: Tensor) -> Tap:
        """The tap of the projector."""
        preact = self.projector(self.stage(flow).flow)
        feature = preact.relu()
        return Tap(feature, preact, feature)


class FrozenHead(nn.Module):
    """A copy of a head, in eval mode for good, whose parameters are buffers: no optimiser ever finds them."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = copy.deepcopy(head)
        for part in self.head.modules():
            for name, parameter in list(part.named_parameters(recurse=False)):
                delattr(part, name)
                part.register_buffer(name, parameter.detach().clone())
        self.eval()

    def train(self, mode: bool = True) -> FrozenHead:
        """Stay in eval mode."""
        return super().train(False)

    def forward(self, flow: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> (B, D) embedding and (B, K) logits."""
        return self.head(flow)


class SimKD(Method):
    """The reused teacher classifier (arXiv:2203.14001): the student's last map, projected, equals the teacher's.

    Reads the last maps, (B, C, H, W) after the projector and (B, C, H', W'). The student is another network from then
    on: its last stage ends in a projector and its head is the teacher's, frozen; that is what is evaluated and saved,
    and it is larger than the student was. Nothing but the squared error trains it, neither cross-entropy nor KD.

    Deviation: the student's own head is dropped, where the authors' code keeps it, untrained, and lets it decay.

    Example:
        >>> SimKD.rebuild(student, teacher, image=(3, 32, 32))
        >>> method = SimKD(Pair.of(teacher, student, (3, 32, 32), labels))
        >>> method.attach(student, teacher, image=(3, 32, 32))
        >>> loss = method(student.activations(images), teacher.activations(images), batch)

    Args:
        pair: the networks, the student with its projector.
        factor: how much narrower than the teacher's map the middle of the projector is.

    Raises:
        InputError: `factor` is not positive, or the last stages are not aligned.
    """

    summary = "Knowledge Distillation with the Reused Teacher Classifier (Chen et al., CVPR 2022)"
    reads = "the last maps; the student gets a projector and the teacher's head"
    source = "DefangChen/SimKD"
    ce = 0.0
    kd = 0.0
    teacher_outputs = ("features", "preacts")

    def __init__(self, pair: Pair, *, factor: int = 2) -> None:
        super().__init__(pair)
        require_positive("simkd", factor=factor)
        if pair.student.features[-1][0] != pair.teacher.features[-1][0]:
            raise InputError("simkd projects the student's last stage to the teacher's: align these two, or leave it")
        self._place = ""

    @classmethod
    def rebuild(cls, student: StagedNet, teacher: StagedNet, image: Shape, **options: Any) -> None:
        """Put the projector behind the student's last stage, and a frozen copy of the teacher's head on it.

        A student that has been rebuilt stays as it is.

        Raises:
            InputError: what enters a network's head is no map.
        """
        if isinstance(student.stages[-1], ProjectedStage):
            return
        source, target = (network.shapes(image).flows[-1] for network in (student, teacher))
        if source is None or target is None:
            raise InputError(f"simkd projects maps, and {student.name} or {teacher.name} ends in tokens: use another")
        factor = options.get("factor", 2)
        require_positive("simkd", factor=factor)
        projector = Projector(source[0], target, factor).to(next(student.parameters()))
        student.stages[-1] = ProjectedStage(student.stages[-1], projector)
        student.head = FrozenHead(teacher.head)

    def attach(self, student: StagedNet, teacher: StagedNet, image: Shape) -> None:
        """Find the map that the teacher's head reads.

        Raises:
            InputError: its activations do not show it.
        """
        self._place = place_of_flow(teacher, image, "simkd")

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """The squared error, a scalar."""
        return feature_loss(student.features[-1], last_map(teacher, self._place).detach())
