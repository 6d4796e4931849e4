"""FitNet: a hint from the middle of the teacher (Romero et al., 2015, arXiv:1412.6550)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from sftn.data.batch import Batch
from sftn.errors import InputError
from sftn.methods.base import Method, in_float32, in_own_dtype
from sftn.networks.alignment import Pair
from sftn.networks.connector import connector
from sftn.networks.staged import Activations


@in_float32
def hint_loss(connected: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error between the connected student's feature and the teacher's, both (B, C, H, W): a scalar."""
    return F.mse_loss(connected, teacher)


class FitNet(Method):
    """FitNet (arXiv:1412.6550, equation 3): the student's feature, through a connector, equals the teacher's.

    Reads the features (B, C, H, W) and (B, C', H', W') of one stage. The connector is a convolution, batch norm and
    ReLU to the teacher's shape.

    Deviations, all RepDistiller's: the hint is added to the objective from the start, where the paper trains it first
    and the classifier afterwards; the squared error is a mean over all elements, which is 2/(C'·H'·W') of the paper's
    half squared norm.

    Example:
        >>> method = FitNet(pair, stage=2)
        >>> loss = method(student.activations(images), teacher.activations(images), batch)

    Args:
        pair: the networks; any map sizes.
        stage: which stage gives the hint, counted from 1; the last one where there are fewer.

    Raises:
        InputError: `stage` is below 1.
    """

    summary = "FitNets: Hints for Thin Deep Nets (Romero et al., ICLR 2015)"
    reads = "the feature of one stage"
    source = "RepDistiller"
    weight = 100.0

    def __init__(self, pair: Pair, *, stage: int = 2) -> None:
        super().__init__(pair)
        if stage < 1:
            raise InputError(f"fitnet's stage {stage} is not there: stages count from 1")
        self.stage = min(stage, len(pair.student.features)) - 1
        self.connector = connector(pair.student.features[self.stage], pair.teacher.features[self.stage])

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """The hint's mean squared error, a scalar."""
        connected = in_own_dtype(self.connector, student.features[self.stage])
        return hint_loss(connected, teacher.features[self.stage].detach())
