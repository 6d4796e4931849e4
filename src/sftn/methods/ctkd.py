"""CTKD: KD whose temperature is learned against the student (Li et al., 2023, arXiv:2211.16231)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sftn.errors import InputError
from sftn.methods.base import in_float32, require_positive
from sftn.methods.kd import divergence
from sftn.methods.logits import LogitMethod
from sftn.networks.alignment import Pair
from sftn.spec.objective import epochs_of


@in_float32
def learned_temperature(parameter: Tensor, reversal: Tensor, t_start: float, t_end: float) -> Tensor:
    """t_start + t_end·sigmoid(parameter), a scalar; its gradient reaches the parameter multiplied by `reversal`."""
    turned = parameter.detach() + reversal * (parameter - parameter.detach())
    return t_start + t_end * turned.sigmoid()


def reversal_at(epoch: int, loops: int) -> float:
    """What the gradient of the temperature is multiplied by in an epoch, counted from 0: half a cosine from 0 to -1."""
    return -(1 - math.cos(math.pi * min(epoch + 1, loops) / loops)) / 2


class CTKD(LogitMethod):
    """KD with a curriculum of temperatures (arXiv:2211.16231), the global one: T²·KL(teacher ‖ student) at a learned T.

    Reads the logits, (B, K). T = t_start + t_end·sigmoid(θ) is trained with the student, by the same optimiser (rate,
    momentum and weight decay), to make the loss larger: the gradient of θ is reversed, by a factor that grows from 0 to
    1 over the first 10 of 240 epochs. T² and the teacher's T have gradients as well. Beside 0.1·CE, at weight 0.9.

    Deviation: `loops` below 1 is a fraction of the run, so that a shorter run has its share of the curriculum; in the
    authors' code it is always 10 epochs.

    Example:
        >>> method = CTKD(pair)
        >>> loss = method(student.activations(images), teacher.activations(images), batch)

    Args:
        pair: the networks.
        start: θ before training; 1 makes T 15.6.
        t_start: the temperature lies above it.
        t_end: and below t_start + t_end.
        loops: epochs (or fraction of the run) in which the reversal grows.
        standardise: compare standardised logits.

    Raises:
        InputError: a temperature or `loops` is out of range.
    """

    summary = "Curriculum Temperature for Knowledge Distillation (Li et al., AAAI 2023)"
    source = "zhengli97/CTKD"
    ce = 0.1
    kd = 0.0
    weight = 0.9
    standardised_weight = 9.0
    reversal: Tensor

    def __init__(
        self,
        pair: Pair,
        *,
        start: float = 1.0,
        t_start: float = 1.0,
        t_end: float = 20.0,
        loops: float = 10 / 240,
        standardise: bool = False,
    ) -> None:
        super().__init__(pair, standardise=standardise)
        require_positive("ctkd", t_end=t_end, loops=loops)
        require_positive("ctkd", zero=True, t_start=t_start)
        if not math.isfinite(loops):
            raise InputError(f"ctkd's loops is {loops}: give epochs (10), or a fraction of the run (0.04)")
        self.t_start, self.t_end, self.loops = t_start, t_end, loops
        self.parameter = nn.Parameter(torch.tensor(start))
        self.register_buffer("reversal", torch.tensor(-1.0), persistent=False)

    def set_epoch(self, epoch: int, epochs: int) -> None:
        """Set the factor of the reversed gradient."""
        self.reversal.fill_(reversal_at(epoch, epochs_of(self.loops, epochs)))

    def softness(self) -> Tensor:
        """The temperature as it is now; what several teachers say together passes it no gradient."""
        return learned_temperature(self.parameter, self.reversal, self.t_start, self.t_end).detach()

    def loss(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """T²·KL(teacher ‖ student)."""
        temperature = learned_temperature(self.parameter, self.reversal, self.t_start, self.t_end)
        return divergence(student, teacher, temperature)
