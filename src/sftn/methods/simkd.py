"""SimKD: the teacher's classifier, reused by the student (Chen et al., 2022, arXiv:2203.14001)."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from sftn.data.batch import Batch
from sftn.errors import InputError
from sftn.methods.at import same_size
from sftn.methods.base import Method, in_float32, require_positive
from sftn.methods.last_map import last_map, place_of_flow
from sftn.networks.alignment import Pair
from sftn.networks.reused_head import Projector, reuse, reuses
from sftn.networks.staged import Activations, Shape, StagedNet


@in_float32
def feature_loss(projected: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error of two maps, (B, C, H, W) each, the larger one averaged down to the smaller: a scalar."""
    projected, teacher = same_size(projected, teacher)
    return F.mse_loss(projected, teacher)


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
        if reuses(student):
            return
        source, target = (network.shapes(image).flows[-1] for network in (student, teacher))
        if source is None or target is None:
            raise InputError(f"simkd projects maps, and {student.name} or {teacher.name} ends in tokens: use another")
        factor = options.get("factor", 2)
        require_positive("simkd", factor=factor)
        projector = Projector(source[0], max(1, target[0] // factor), target).to(next(student.parameters()))
        reuse(student, projector, teacher.head)

    def attach(self, student: StagedNet, teacher: StagedNet, image: Shape) -> None:
        """Find the map that the teacher's head reads.

        Raises:
            InputError: its activations do not show it.
        """
        self._place = place_of_flow(teacher, image, "simkd")

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """The squared error, a scalar."""
        return feature_loss(student.features[-1], last_map(teacher, self._place).detach())
